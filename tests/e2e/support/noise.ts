import { spawn } from "node:child_process";
import { once } from "node:events";

const PROBE = `
  let last = performance.now(), longest = 0;
  setInterval(() => { const now = performance.now(); longest = Math.max(longest, now - last - 5); last = now; }, 5);
  process.stdin.on("end", () => { console.log(longest / 1000); process.exit(); }).resume();
`;

/**
 * How long the machine lets a process wait that has nothing to do but to wake up: on a machine that is busy with others, a shard
 * is held up by that too, whatever its tenants do. @returns a function that ends the measurement and gives the longest wait in seconds
 */
export function measureNoise(): () => Promise<number> {
  const child = spawn(process.execPath, ["-e", PROBE], { stdio: ["pipe", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  return async () => {
    child.stdin.end();
    await once(child, "close");
    return Number(output);
  };
}
