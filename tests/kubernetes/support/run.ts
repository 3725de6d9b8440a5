import { spawn } from "node:child_process";

/** Runs a program to its end. @param input for its standard input @returns its output @throws Error with what it said when it fails */
export function run(program: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    let output = "";
    let problem = "";
    child.stdout.on("data", (chunk) => (output += String(chunk)));
    child.stderr.on("data", (chunk) => (problem += String(chunk)));
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) resolve(output);
      else
        reject(
          new Error(`${program} ${args.slice(0, 6).join(" ")} … failed (${code}): ${problem.trim() || output.trim()}`),
        );
    });
    child.stdin.on("error", () => {});
    child.stdin.end(input);
  });
}

export const kubectl = (...args: string[]): Promise<string> => run("kubectl", args);
export const helm = (...args: string[]): Promise<string> => run("helm", args);
