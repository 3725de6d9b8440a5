import { writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { ensureConsole } from "../../../console/build.ts";
import type { AuditEntry } from "../../../src/api/audit.ts";
import { loadKubeConfig } from "../../../src/platforms/kubernetes/client.ts";
import { browserProgram, openView, startBrowser, type View } from "../../console/support/browser.ts";
import { withoutCluster } from "../../kubernetes/support/cluster.ts";
import { run } from "../../kubernetes/support/run.ts";
import { Authority } from "../../support/authority.ts";
import { freePort } from "../../support/free-port.ts";
import { CLIENT_ID, CLIENT_SECRET, identityProvider } from "../../support/identity-provider.ts";
import { until } from "../../support/patience.ts";
import { HAS_TRAEFIK, ingressObjects, Traefik } from "../../support/traefik.ts";
import { Controllers, type Replica } from "./support/controllers.ts";

const CHART = resolve(import.meta.dirname, "../../../charts/synapse-shards");
const HOST = "console.example";
const COOKIE = "__Host-synapse-shards";
const SOMEWHERE = "203.0.113.9";

/**
 * The console as people have it: Chromium, an ingress controller that reads the chart's Ingress from a real API server, TLS by an authority of the
 * test's, and an identity provider behind the same ingress controller. The controllers are processes of this machine. The tests build on each other.
 */
describe.skipIf(withoutCluster || !HAS_TRAEFIK || browserProgram() === undefined)(
  "the console behind an ingress controller (needs KUBECONFIG, helm, Traefik and Chromium)",
  () => {
    const controllers = new Controllers(withoutCluster ? undefined! : loadKubeConfig());
    let traefik: Traefik;
    let provider: Server;
    let browser: Browser;
    let former: Replica;
    let other: Replica;
    let ada: View;

    const view = () => openView(browser, `https://${HOST}`, { trustsAnyCertificate: true });
    const whoAmI = async (page: Page) =>
      JSON.parse(await page.evaluate("fetch('/v1/whoami').then((answer) => answer.text())")) as object;
    async function signIn({ page }: View, login: string, path: string): Promise<void> {
      // A controller that asked the provider too early asks it again only after some seconds, and leads back until then.
      await until("sign-in leads to the provider", async () => {
        await page.goto(path);
        await page.getByRole("link", { name: "Sign in with Example" }).click();
        await page.waitForURL((url) => url.host !== HOST || url.searchParams.has("sign-in"));
        return new URL(page.url()).host !== HOST;
      });
      await page.locator("input[name=login]").fill(login);
      await page.locator("input[name=password]").fill("any");
      await page.locator("button[type=submit]").click();
      await page.getByRole("button", { name: "Continue" }).click();
    }
    const audited = async (replica: Replica) => {
      const { stdout } = await controllers.cli(replica, "audit", "export");
      return stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as AuditEntry);
    };

    beforeAll(async () => {
      await ensureConsole();
      await controllers.prepare();
      const { namespace, clusterId, directory } = controllers;
      traefik = await Traefik.start(namespace);
      const issuer = `https://localhost:${traefik.port}`;
      const people = { ada: ["matrix-admins", "staff"], eve: ["helpdesk"], carl: ["staff"] };
      const identities = identityProvider(issuer, [`https://${HOST}`], people);
      // TLS ends before it.
      identities.proxy = true;
      const answer = identities.callback();
      provider = createServer((request, response) => void answer(request, response));
      await new Promise<void>((done) => provider.listen(0, "127.0.0.1", done));

      const authority = await Authority.make();
      const served = await authority.issue([HOST, "localhost"]);
      const [ca, secret] = [join(directory, "ca.pem"), join(directory, "client-secret")];
      await writeFile(ca, authority.pem);
      await writeFile(secret, CLIENT_SECRET);
      const values = {
        console: {
          enabled: true,
          url: `https://${HOST}`,
          trustedProxies: ["127.0.0.1/32"],
          ingress: { enabled: true, className: namespace, tlsSecret: "tls" },
          signIn: {
            oidc: {
              issuer,
              clientId: CLIENT_ID,
              label: "Sign in with Example",
              scopes: ["openid", "profile"],
              roles: [
                { group: "matrix-admins", role: "admin" },
                { group: "helpdesk", role: "viewer" },
              ],
            },
            oidcSecret: { name: "console-oidc" },
          },
        },
      };
      const rendered = await run(
        "helm",
        ["template", clusterId, CHART, "-n", namespace, "-f", "-"],
        JSON.stringify(values),
      );
      const manifests = parseAllDocuments(rendered).map((document) => document.toJS() as Manifest);
      const of = (kind: string, name: string) =>
        manifests.find((manifest) => manifest?.kind === kind && manifest.metadata.name === name)!;
      const config = parse(of("ConfigMap", `${clusterId}-controller`).data!["controller.yaml"]!) as ConsoleConfig;
      config.signIn.oidc["clientSecretFile"] = secret;
      const start = async () => {
        const port = await freePort();
        const own = { ...config, console: { ...config.console, host: "127.0.0.1", port } };
        return { port, replica: await controllers.start(own, { NODE_EXTRA_CA_CERTS: ca }) };
      };
      former = (await start()).replica;
      await controllers.leads(former);
      const standby = await start();
      other = standby.replica;
      await controllers.answers(other);

      const { port } = provider.address() as AddressInfo;
      const host = "localhost";
      const backend = { service: { name: "provider", port: { number: port } } };
      const items = [
        ...ingressObjects(namespace, served),
        here(`${clusterId}-controller`, { name: "console", port: standby.port }),
        here("provider", { port }),
        of("Ingress", `${clusterId}-console`),
        {
          kind: "Ingress",
          apiVersion: "networking.k8s.io/v1",
          metadata: { name: "provider" },
          spec: {
            ingressClassName: namespace,
            tls: [{ hosts: [host], secretName: "tls" }],
            rules: [{ host, http: { paths: [{ path: "/", pathType: "Prefix", backend }] } }],
          },
        },
      ];
      await run(
        "kubectl",
        ["-n", namespace, "apply", "-f", "-"],
        JSON.stringify({ apiVersion: "v1", kind: "List", items }),
      );
      browser = await startBrowser([`--host-resolver-rules=MAP ${HOST}:443 127.0.0.1:${traefik.port}`]);
      ada = await view();
      // The provider is asked once the ingress controller leads there.
      await until("the console is there", async () => (await ada.page.goto("/"))?.status() === 200);
      const known = `${issuer}/.well-known/openid-configuration`;
      await until("the provider is there", async () => (await ada.page.request.get(known)).status() === 200);
    });
    afterAll(async () => {
      await ada?.close();
      await browser?.close();
      await traefik?.close();
      provider?.close();
      await run("kubectl", ["delete", "ingressclass", controllers.namespace, "--ignore-not-found"]);
      await controllers.close();
    });

    it("lets a person in with the role of their group, by a cookie that no other host, script or site has", async () => {
      const { page } = ada;
      // Nobody's word but the ingress controller's counts.
      await page.context().setExtraHTTPHeaders({ "x-forwarded-for": SOMEWHERE });
      await signIn(ada, "ada", "/events");
      await page.getByRole("heading", { name: "Events" }).waitFor();
      expect(await whoAmI(page)).toMatchObject({ name: "oidc:ada", role: "admin" });
      const cookies = await page.context().cookies(`https://${HOST}`);
      const attributes = { domain: HOST, path: "/", secure: true, httpOnly: true, sameSite: "Strict" };
      expect(cookies.find(({ name }) => name === COOKIE)).toMatchObject(attributes);
      expect(await page.evaluate("document.cookie")).not.toContain(COOKIE);
      const signIns = (await audited(former)).filter(({ action }) => action === "finishOidc");
      expect(signIns).toMatchObject([{ actor: "oidc:ada", role: "admin", client: "127.0.0.1" }]);
    });

    it("gives others what their groups may do, and nobody more", async () => {
      const eve = await view();
      await signIn(eve, "eve", "/audit");
      await eve.page.getByText("The audit log is for admins").waitFor();
      expect(await whoAmI(eve.page)).toMatchObject({ name: "oidc:eve", role: "viewer" });
      await eve.close();
      const carl = await view();
      await signIn(carl, "carl", "/");
      await carl.page.getByText("none of your groups has a role here").waitFor();
      await carl.close();
    });

    it("goes on with the next leader, who knows who is signed in and what was done before, and signs out of both", async () => {
      const { page } = ada;
      former.child.kill("SIGKILL");
      await controllers.leads(other);
      await controllers.answers(other);
      await page.goto("/audit");
      await page.getByText("finishOidc").first().waitFor();
      expect(await whoAmI(page)).toMatchObject({ name: "oidc:ada", role: "admin" });
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByRole("button", { name: "Yes, sign me out" }).click();
      await page.getByRole("link", { name: "Sign in with Example" }).waitFor();
      const verified = await controllers.cli(other, "audit", "verify", "-o", "json");
      expect(JSON.parse(verified.stdout)).toMatchObject({ breaks: [] });
    });
  },
);

interface Manifest {
  kind: string;
  metadata: { name: string };
  data?: Record<string, string>;
}

interface ConsoleConfig {
  console: object;
  signIn: { oidc: Record<string, unknown> };
}

/** A Service that leads to this machine. */
function here(name: string, port: object): object {
  const spec = { type: "ExternalName", externalName: "localhost", ports: [port] };
  return { kind: "Service", apiVersion: "v1", metadata: { name }, spec };
}
