/** Load from a process of its own: wrk (Debian package `wrk`). */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface Load {
  url: string;
  /** The hosts that requests go to, in turn. */
  hosts: string[];
  connections: number;
  seconds: number;
  /** Requests per second to aim at; without it, as many as are answered. */
  rate?: number;
}

export interface LoadResult {
  requests: number;
  /** No answer, or an unsuccessful one. */
  errors: number;
  seconds: number;
  /** Milliseconds from sending a request to the end of its answer. */
  p50: number;
  p99: number;
}

/** Three of four requests are polls, the fourth sends a message. A connection pauses for a random time, so that requests come at random times. */
function script({ hosts, connections, rate }: Load): string {
  const pauseMs = rate === undefined ? 0 : (connections * 1000) / rate;
  return `
local hosts = { ${hosts.map((host) => `"${host}"`).join(", ")} }
local n = 0
local poll, send = {}, {}
local body = '{"msgtype":"m.text","body":"' .. string.rep("a", 200) .. '"}'
init = function()
  for i, host in ipairs(hosts) do
    local headers = { Host = host, Authorization = "Bearer syt_YWxpY2U_abcdefghijklmnopqrst_0abcde", Accept = "application/json" }
    poll[i] = wrk.format("GET", "/_matrix/client/v3/sync?since=s72594_4483_1934&timeout=0", headers)
    headers["Content-Type"] = "application/json"
    send[i] = wrk.format("PUT", "/_matrix/client/v3/rooms/!abcdefghijklmnopqr:a.example/send/m.room.message/1", headers, body)
  end
end
request = function()
  n = n + 1
  local i = n % #hosts + 1
  if n % 4 == 0 then return send[i] end
  return poll[i]
end
${pauseMs > 0 ? `delay = function() return math.floor(math.random() * ${(2 * pauseMs).toFixed(1)} + 0.5) end` : ""}
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"errors":%d,"seconds":%f,"p50":%f,"p99":%f}\\n', summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
`;
}

export async function hasWrk(): Promise<boolean> {
  return (await run("which", ["wrk"]).catch(() => undefined)) !== undefined;
}

/** @throws Error when wrk prints something other than its result */
export async function runWrk(load: Load, directory: string): Promise<LoadResult> {
  const file = join(directory, "load.lua");
  await writeFile(file, script(load));
  const { connections, seconds, url } = load;
  const options = { "-t": 1, "-c": connections, "-d": `${seconds}s`, "--timeout": "10s", "-s": file };
  const { stdout } = await run("wrk", Object.entries(options).flat().map(String).concat(url));
  const result = /^RESULT (.*)$/m.exec(stdout)?.[1];
  if (result === undefined) throw new Error(`wrk said: ${stdout}`);
  return JSON.parse(result) as LoadResult;
}
