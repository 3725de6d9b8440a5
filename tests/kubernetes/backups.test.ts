import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { messagesOf } from "../e2e/support/matrix.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation } from "./support/installation.ts";
import { kubectl, run } from "./support/run.ts";
import { until } from "../support/patience.ts";
import { POSTGRES_PASSWORD } from "./support/servers.ts";

const MINUTES = 60_000;

/** docs/backups.md, done as it says. */
describe.skipIf(withoutCluster)("backups (needs KUBECONFIG, and the images of tests/kubernetes/images)", () => {
  const cluster = new Installation("backup", { keys: "made" });
  const inPod = (pod: string, command: string) =>
    kubectl("-n", cluster.namespace, "exec", pod, "--", "sh", "-c", command);
  const postgres = (command: string) =>
    inPod("postgres", `export PGPASSWORD=${POSTGRES_PASSWORD} PGHOST=127.0.0.1 PGUSER=postgres; ${command}`);
  const home = () => `${cluster.namespace}-a`;

  beforeAll(() => cluster.install({ maxTenantsPerShard: 5 }), 5 * MINUTES);
  afterAll(() => cluster.close(), 5 * MINUTES);

  async function destroy(): Promise<void> {
    await cluster.uninstallTenant("a");
    await until("its SynapseTenant is gone", async () => {
      const left = await kubectl("-n", cluster.namespace, "get", "synapsetenants", "-o", "name");
      return left === "";
    });
    await until("its namespace is gone", async () =>
      kubectl("get", "namespace", home()).then(
        () => false,
        () => true,
      ),
    );
    await postgres("dropdb a && dropuser a");
    await cluster.s3Admin("delete-user", "-a", "a");
    await inPod("s3", "rm -rf /data/buckets/bucket-a /data/meta/bucket-a");
  }

  it(
    "restores a homeserver with all it had after the loss of everything",
    async () => {
      await cluster.createTenant("a");
      await cluster.running("a");
      const ada = await cluster.register("a", "ada");
      const { room_id: room } = await ada.client.createRoom({});
      for (const text of ["one", "two", "three"]) await ada.client.sendTextMessage(room, text);
      const picture = randomBytes(100_000);
      const { content_uri: mxc } = await ada.client.uploadContent(picture, { type: "image/png", name: "p.png" });

      const keys = await kubectl("-n", home(), "get", "secret", "a-generated", "-o", "json");
      await postgres("pg_dump --format=custom --no-owner --no-privileges --dbname=a --file=/data/a.dump");
      await inPod("s3", "cp -r /data/buckets/bucket-a /data/backup-a && cp -r /data/meta/bucket-a /data/backup-a-meta");
      const fence = () => cluster.sql("SELECT epoch FROM synapse_shards.fence", "a");
      const before = BigInt((await fence()).trim());
      await ada.client.sendTextMessage(room, "after the backup");
      await destroy();

      await postgres("createuser a && createdb --owner=a --template=template0 --encoding=UTF8 --locale=C a");
      await cluster.sql(`ALTER ROLE a PASSWORD 'pw-a'`);
      await postgres("pg_restore --no-owner --role=a --dbname=a --exit-on-error /data/a.dump");
      await cluster.s3Admin("create-user", "-a", "a", "-s", "secret-a", "-r", "user");
      await cluster.s3Admin("create-bucket", "--owner", "a", "--bucket", "bucket-a");
      await inPod(
        "s3",
        "cp -r /data/backup-a/. /data/buckets/bucket-a/ && cp -r /data/backup-a-meta/. /data/meta/bucket-a/ 2>/dev/null || true",
      );
      await kubectl("create", "namespace", home());
      const secret = JSON.parse(keys) as { metadata: Record<string, unknown> };
      for (const field of ["resourceVersion", "uid", "creationTimestamp", "managedFields"])
        delete secret.metadata[field];
      await run("kubectl", ["apply", "-f", "-"], JSON.stringify(secret));
      await cluster.reinstallTenant("a");
      await cluster.running("a");

      // The same login, not a new one: it stands on the macaroon secret and on the database.
      expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");
      expect(await messagesOf(ada, room)).toEqual(["one", "two", "three"]);
      expect((await ada.download(mxc)).equals(picture)).toBe(true);
      await ada.client.sendTextMessage(room, "four");
      expect((await cluster.logIn("a", "ada")).client.getUserId()).toBe("@ada:a.example");
      const restored = await kubectl("-n", home(), "get", "secret", "a-generated", "-o", "jsonpath={.data}");
      expect(JSON.parse(restored)).toEqual((JSON.parse(keys) as { data: object }).data);
      expect(BigInt((await fence()).trim())).toBeGreaterThan(before);
    },
    6 * MINUTES,
  );

  it(
    "starts a tenant again whose database was set back to an older epoch",
    async () => {
      const ada = await cluster.logIn("a", "ada");
      await postgres("pg_dump --format=custom --no-owner --no-privileges --dbname=a --file=/data/older.dump");
      // Raises the epoch far above that of the dump.
      await cluster.helmTenant("a", {});
      await cluster.uninstallTenant("a");
      await until(
        "it is gone",
        async () => (await kubectl("-n", cluster.namespace, "get", "synapsetenants", "-o", "name")) === "",
      );
      await postgres("dropdb a && createdb --owner=a --template=template0 --encoding=UTF8 --locale=C a");
      await postgres("pg_restore --no-owner --role=a --dbname=a --exit-on-error /data/older.dump");
      await until("its namespace is gone", async () =>
        kubectl("get", "namespace", home()).then(
          () => false,
          () => true,
        ),
      );
      await kubectl("create", "namespace", home());
      await cluster.reinstallTenant("a");
      await cluster.running("a");
      // Logins are in the database.
      expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");
      expect((await cluster.logIn("a", "ada")).client.getUserId()).toBe("@ada:a.example");
    },
    6 * MINUTES,
  );
});
