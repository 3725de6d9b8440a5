#!/usr/bin/env node
// `node bin/run.mjs FILE ARGUMENTS`: runs one of the project's programs, with up-to-date packages and a suitable Node.
import { resolve } from "node:path";
import { ensureDependencies, ROOT, runWithNode24 } from "./bootstrap.mjs";

const [file, ...args] = process.argv.slice(2);
ensureDependencies();
await runWithNode24(resolve(ROOT, file), args);
