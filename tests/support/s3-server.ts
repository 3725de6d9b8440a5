import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../src/platforms/local/up/ports.ts";
import { until } from "./patience.ts";

/** tests/kubernetes/images/build --binaries makes it. */
export const VERSITYGW = join(
  process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"),
  "synapse-shards-test",
  "versitygw-1.8.0",
);
export const S3_ACCESS = { accessKeyId: "root", secretAccessKey: "root-secret-of-the-tests" };

/** A real S3 server with an empty bucket `backups`, whose objects are files in `directory`. */
export async function startS3(): Promise<{ endpoint: string; directory: string; close(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), "synapse-shards-s3-"));
  for (const name of ["meta", "buckets/backups"]) await mkdir(join(directory, name), { recursive: true });
  const port = await freePort("127.0.0.1");
  const args = ["--quiet", "--port", `127.0.0.1:${port}`, "--access", S3_ACCESS.accessKeyId];
  args.push(
    "--secret",
    S3_ACCESS.secretAccessKey,
    "posix",
    "--sidecar",
    join(directory, "meta"),
    join(directory, "buckets"),
  );
  const server = spawn(VERSITYGW, args, { stdio: "ignore" });
  const answers = () =>
    new Promise<boolean>((done) => {
      const socket = connect(port, "127.0.0.1", () => (socket.destroy(), done(true)));
      socket.on("error", () => done(false));
    });
  await until("the S3 server answers", answers);
  return {
    endpoint: `http://127.0.0.1:${port}`,
    directory: join(directory, "buckets/backups"),
    close: async () => {
      if (server.signalCode !== null) return;
      const ended = new Promise((done) => server.once("exit", done));
      server.kill("SIGKILL");
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}
