import { Decrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Job } from "../../src/model/backup.ts";
import { messagesOf } from "../e2e/support/matrix.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation } from "./support/installation.ts";
import { kubectl, run } from "./support/run.ts";
import { until } from "../support/patience.ts";
import { POSTGRES_PASSWORD, S3_ROOT } from "./support/servers.ts";

const MINUTES = 60_000;

/** Backups that the cluster makes, with the servers of the tenants behind certificates of a private authority. */
describe.skipIf(withoutCluster)(
  "backups by the cluster (needs KUBECONFIG, and the images of tests/kubernetes/images)",
  () => {
    const cluster = new Installation("backed-up", { tls: true });
    let identity = "";
    const values = async () => ({
      backups: {
        enabled: true,
        target: {
          bucket: "backups",
          prefix: "cluster-1/",
          endpoint: `https://s3.${cluster.namespace}.svc.cluster.local:7070`,
          credentialsSecret: "backups-s3",
        },
        recipient: await identityToRecipient((identity = await generateX25519Identity())),
        scratchSize: "2Gi",
      },
    });
    const path = "/v1/tenants/a/backups";
    const secret = (secretAccessKey: string) => ({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "backups-s3" },
      stringData: { accessKeyId: S3_ROOT.access, secretAccessKey },
    });
    const begin = (what: string, body: object = {}) => cluster.api("POST", what, body) as Promise<Job>;
    /** Where a controller ends, another one answers, which may need a moment. */
    const ended = ({ id }: Pick<Job, "id">) =>
      until(
        "the job ends",
        async () => {
          const job = (await cluster.api("GET", `/v1/jobs/${id}`)) as Job;
          if (job.finishedAt === undefined) throw new Error(JSON.stringify(job));
          return job;
        },
        240,
      );
    const succeeded = async (job: Job) => {
      const found = await ended(job);
      expect(found, found.message).toMatchObject({ state: "Succeeded" });
      return found;
    };
    const listed = async () =>
      (await cluster.api("GET", path)) as {
        items: { backup: { id: string; media: { files: number; newFiles: number; leftOut?: string } } }[];
      };

    beforeAll(async () => {
      const asked = await values();
      await cluster.install({ maxTenantsPerShard: 5 });
      await cluster.apply([secret(S3_ROOT.secret)]);
      await cluster.s3Admin("create-bucket", "--owner", S3_ROOT.access, "--bucket", "backups");
      await cluster.upgrade(asked);
      await cluster.createTenant("a");
      await cluster.running("a");
    }, 6 * MINUTES);
    afterAll(() => cluster.close(), 5 * MINUTES);

    it(
      "backs a tenant up while it runs, verifies, restores it with all it had, and takes that back",
      async () => {
        const ada = await cluster.register("a", "ada");
        const { room_id: room } = await ada.client.createRoom({});
        for (const text of ["one", "two"]) await ada.client.sendTextMessage(room, text);
        const picture = randomBytes(100_000);
        const { content_uri: mxc } = await ada.client.uploadContent(picture, { type: "image/png", name: "p.png" });
        const media = new URL(mxc).pathname.slice(1);
        await cluster.sql(
          "INSERT INTO e2e_one_time_keys_json (user_id, device_id, algorithm, key_id, ts_added_ms, key_json) VALUES ('@ada:a.example', 'D', 'signed_curve25519', 'K', 1, '{}')",
          "a",
        );

        // Asked for twice, it is made once.
        const [job, same] = await Promise.all([begin(path), begin(path)]);
        expect(same.id).toBe(job.id);
        const { backup } = await succeeded(job);
        const [first] = (await listed()).items;
        expect(first?.backup).toMatchObject({ id: backup, media: { files: 1, newFiles: 1 } });
        await succeeded(await begin(path));
        expect((await listed()).items[0]?.backup.media).toMatchObject({ files: 1, newFiles: 0 });
        expect((await succeeded(await begin(`${path}/verify`, { backup }))).message).toContain("can be restored");

        await ada.client.sendTextMessage(room, "after the backup");
        const stored = `/data/buckets/bucket-a/local_content/${media.slice(0, 2)}/${media.slice(2, 4)}/${media.slice(4)}`;
        await kubectl("-n", cluster.namespace, "exec", "s3", "--", "sh", "-c", `rm ${stored}`);
        const { message } = await succeeded(await begin("/v1/tenants/a/restore", { backup }));
        expect(message).toContain(`runs with backup ${backup}`);
        expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");
        expect(await messagesOf(ada, room)).toEqual(["one", "two"]);
        expect((await cluster.sql("SELECT count(*) FROM e2e_one_time_keys_json", "a")).trim()).toBe("0");
        const back = await kubectl("-n", cluster.namespace, "exec", "s3", "--", "sh", "-c", `wc -c < ${stored}`);
        expect(Number(back)).toBe(picture.length);
        expect((await ada.download(mxc)).equals(picture)).toBe(true);
        await ada.client.sendTextMessage(room, "three");

        await succeeded(await begin("/v1/tenants/a/restore/undo"));
        expect(await messagesOf(ada, room)).toEqual(["one", "two", "after the backup"]);
        expect((await cluster.logIn("a", "ada")).client.getUserId()).toBe("@ada:a.example");
      },
      8 * MINUTES,
    );

    it(
      "goes on with a backup, and with a restore, whose controller was killed",
      async () => {
        const ada = await cluster.logIn("a", "ada");
        const { room_id: room } = await ada.client.createRoom({});
        await ada.client.sendTextMessage(room, "kept");
        // Large enough to be met half-way.
        await cluster.sql(
          "CREATE TABLE ballast (text text); ALTER TABLE ballast OWNER TO a; INSERT INTO ballast SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 3000) i, generate_series(1, 400) j GROUP BY i",
          "a",
        );
        const kill = async () =>
          kubectl("-n", cluster.namespace, "delete", "pod", await cluster.leader(), "--force", "--grace-period=0");
        const job = await begin(path);
        await until("it is dumped", async () =>
          ((await cluster.api("GET", `/v1/jobs/${job.id}`)) as Job).message.startsWith("database:"),
        );
        await kill();
        const { backup } = await succeeded(job);
        expect((await listed()).items.map((item) => item.backup.id)).toContain(backup);

        await ada.client.sendTextMessage(room, "lost");
        await begin("/v1/tenants/a/restore", { backup });
        await until("what was there is being put aside", async () => {
          const sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'a' AND query LIKE 'COPY%FROM stdin;'";
          return (await cluster.sql(sql)).trim() !== "0";
        });
        await kill();
        await cluster.running("a", (status) => status.restored?.backup === backup);
        expect(await messagesOf(ada, room)).toEqual(["kept"]);
        await ada.client.sendTextMessage(room, "after");
        expect((await cluster.sql("SELECT count(*) FROM ballast", "a")).trim()).toBe("3000");
      },
      8 * MINUTES,
    );

    it(
      "says what keeps it from the target or the media, and makes the backup again as soon as it can",
      async () => {
        const leftOut = async () => {
          await succeeded(await begin(path));
          return (await listed()).items[0]?.backup.media.leftOut;
        };
        await cluster.helmTenant("a", { media: "wrong" });
        const why = await until("media are out of reach", leftOut, 240);
        expect(why).toContain("the bucket bucket-a");
        expect(why).toContain("refuses the credentials");
        const { problems } = (await cluster.api("GET", "/v1/status")) as { problems: { message: string }[] };
        expect(JSON.stringify(problems)).toContain("is without media");
        await cluster.helmTenant("a", {});
        await until("media are backed up again", async () => (await leftOut()) === undefined, 240);

        await cluster.apply([secret("wrong")]);
        const failed = await until(
          "the target refuses it",
          async () => {
            const job = await ended(await begin(path));
            if (job.state !== "Failed") throw new Error(JSON.stringify(job));
            return job;
          },
          240,
        );
        expect(failed.message).toContain("s3://backups/cluster-1/");
        expect(failed.message).toContain("refuses the credentials");
        await cluster.apply([secret(S3_ROOT.secret)]);
        await until("it is backed up again", async () => (await ended(await begin(path))).state === "Succeeded", 240);
      },
      12 * MINUTES,
    );

    it(
      "restores a homeserver whose release, keys, database and bucket are lost, once it is installed again with its keys",
      async () => {
        const ada = await cluster.logIn("a", "ada");
        const { room_id: room } = await ada.client.createRoom({});
        await ada.client.sendTextMessage(room, "kept");
        const picture = randomBytes(50_000);
        const { content_uri: mxc } = await ada.client.uploadContent(picture, { type: "image/png", name: "p.png" });
        const { backup } = await succeeded(await begin(path));
        const inS3 = (command: string) => kubectl("-n", cluster.namespace, "exec", "s3", "--", "sh", "-c", command);
        const sealed = await inS3(`base64 /data/buckets/backups/cluster-1/backups/a/${backup}/keys.age`);
        const decrypter = new Decrypter();
        decrypter.addIdentity(identity);
        const opened = await decrypter.decrypt(Buffer.from(sealed, "base64"), "text");
        const { secrets } = JSON.parse(opened) as { secrets: { signingKey: string } };
        expect(secrets.signingKey).toMatch(/^ed25519 a_test /);

        await cluster.uninstallTenant("a");
        await until("its SynapseTenant is gone", async () => {
          const left = await kubectl("-n", cluster.namespace, "get", "synapsetenants", "-o", "name");
          return left === "";
        });
        await until("its namespace is gone", async () =>
          kubectl("get", "namespace", cluster.namespaceOf("a")).then(
            () => false,
            () => true,
          ),
        );
        await cluster.sql("DROP DATABASE a WITH (FORCE)");
        await cluster.sql("DROP ROLE a");
        await cluster.s3Admin("delete-user", "-a", "a");
        await inS3("rm -rf /data/buckets/bucket-a /data/meta/bucket-a");
        await cluster.createTenant("a");
        await cluster.running("a");

        await succeeded(await begin("/v1/tenants/a/restore"));
        expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");
        expect(await messagesOf(ada, room)).toEqual(["kept"]);
        expect((await ada.download(mxc)).equals(picture)).toBe(true);
        await ada.client.sendTextMessage(room, "after the loss");
      },
      8 * MINUTES,
    );
  },
);

/** docs/backups.md, done as it says. */
describe.skipIf(withoutCluster)("backups by hand (needs KUBECONFIG, and the images of tests/kubernetes/images)", () => {
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
