#!/usr/bin/env node
// Runs on Node 18 or newer: brings the npm packages up to date, finds a Node that the project runs on, and hands over to it.
import { ensureDependencies, ROOT, runWithNode24 } from "./bootstrap.mjs";
import { join } from "node:path";

ensureDependencies();
await runWithNode24(join(ROOT, "src/cli/main.ts"), process.argv.slice(2));
