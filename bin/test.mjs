#!/usr/bin/env node
// `npm test`: brings the npm packages up to date, then runs the checks on a Node that the project runs on.
import { join } from "node:path";
import { ensureDependencies, ROOT, runWithNode24 } from "./bootstrap.mjs";

ensureDependencies();
await runWithNode24(join(ROOT, "bin/checks.ts"), process.argv.slice(2));
