import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type ClusterUnderTest, MAIN, startClusterUnderTest } from "./cli-under-test.ts";

const run = promisify(execFile);

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  cluster.service.addShard("1.163.2-0");
  cluster.service.run(cluster.service.addTenant("clinic-a"), "1.163.2-0");
});
afterEach(() => cluster.close());

/** Runs a command at a terminal of its own, types an answer once it is asked, and gives up after a minute. */
const AT_TERMINAL = `
import fcntl, os, pty, select, signal, struct, sys, termios, time
columns, answer, *command = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    time.sleep(0.2)
    os.execvp(command[0], command)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 25, int(columns), 0, 0))
output, answered, deadline = b"", False, time.time() + 60
while time.time() < deadline:
    if not select.select([terminal], [], [], 0.1)[0]:
        continue
    try:
        output += os.read(terminal, 4096)
    except OSError:
        break
    if not answered and (b"Password: " in output or b"[y/N] " in output):
        time.sleep(0.3)
        os.write(terminal, answer.encode().decode("unicode_escape").encode())
        answered = True
else:
    os.kill(pid, signal.SIGKILL)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.stdout.write(str(status) + "\\n" + output.decode())
`;

async function atTerminal(args: string[], answer = "", { columns = 100, env = {} } = {}) {
  const command = [process.execPath, MAIN, ...args, "--data", cluster.data];
  const { PATH = "" } = process.env;
  const options = { env: { PATH, TERM: "xterm", ...env } };
  const { stdout } = await run("python3", ["-c", AT_TERMINAL, String(columns), answer, ...command], options);
  const [code, ...lines] = stdout.split("\n");
  return { code: Number(code), output: lines.join("\n") };
}

test("prints colours for people unless NO_COLOR is set", async () => {
  expect((await atTerminal(["tenant", "list"])).output).toContain("\u001b[32mRunning\u001b[39m");
  expect((await atTerminal(["tenant", "list"], "", { env: { NO_COLOR: "1" } })).output).not.toContain("\u001b");
});

test("reads a password without showing it, and takes Ctrl-C for no password", async () => {
  const register = ["tenant", "register-user", "clinic-a", "-u", "bob", "--password-file", "-"];
  const interrupted = await atTerminal(register, String.raw`\x03`);
  expect([interrupted.code, cluster.service.users]).toEqual([130, []]);
  const typed = await atTerminal(register, String.raw`hunter2\r`);
  expect(typed.code).toBe(0);
  expect(typed.output).not.toContain("hunter2");
  expect(cluster.service.users.map(({ request }) => request.password)).toEqual(["hunter2"]);
});

test("asks before a purge", async () => {
  const purge = ["tenant", "delete", "clinic-a", "--purge"];
  for (const [answer, code] of [
    [String.raw`n\r`, 1],
    [String.raw`\r`, 1],
    [String.raw`\x03`, 130],
  ] as const) {
    const refused = await atTerminal(purge, answer);
    expect([answer, refused.code, refused.output.includes("nothing was deleted")]).toEqual([answer, code, true]);
  }
  expect(cluster.service.tenants.has("clinic-a")).toBe(true);
  expect((await atTerminal(purge, String.raw`y\r`)).code).toBe(0);
  expect(cluster.service.tenants.has("clinic-a")).toBe(false);
});

test("shows progress, also on a terminal of width 0", async () => {
  cluster.service.onCreate = (tenant) => {
    tenant.status.phase = "Provisioning";
    setTimeout(() => cluster.service.run(tenant, "1.163.2-0"), 1000);
  };
  const seen = await atTerminal(["tenant", "create", "clinic-b", "--wait"]);
  expect([seen.code, seen.output.includes("clinic-b is Provisioning")]).toEqual([0, true]);
  const narrow = await atTerminal(["tenant", "create", "clinic-c", "--wait"], "", { columns: 0 });
  expect([narrow.code, narrow.output.includes("is running at")]).toEqual([0, true]);
});
