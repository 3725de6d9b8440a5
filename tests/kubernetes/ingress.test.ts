import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Browser } from "playwright-core";
import { Agent, fetch } from "undici";
import type { AuditEntry } from "../../src/api/audit.ts";
import { browserProgram, openView, signIn, startBrowser, type View } from "../console/support/browser.ts";
import type { TestUser } from "../e2e/support/matrix.ts";
import { Authority } from "../support/authority.ts";
import { until } from "../support/patience.ts";
import { HAS_TRAEFIK, ingressObjects, Traefik } from "../support/traefik.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation, PATIENT } from "./support/installation.ts";
import { knock } from "./support/knock.ts";
import { kubectl } from "./support/run.ts";
import { NETWORK, TESTS } from "./support/servers.ts";

const MINUTES = 60_000;
const CONSOLE = "console.example";

/**
 * The chart's Ingresses, Services, NetworkPolicies and pods, with an ingress controller between them and a browser: the console, and the entrance for
 * tenants' administrators. The ingress controller is a process of this machine, which is the first node.
 */
describe.skipIf(withoutCluster || !HAS_TRAEFIK || browserProgram() === undefined)(
  "what the chart has behind an ingress controller (needs KUBECONFIG, helm, Traefik and Chromium)",
  () => {
    const cluster = new Installation("ingress");
    let traefik: Traefik;
    let browser: Browser;
    let agent: Agent;
    let view: View;
    let ada: TestUser;

    /** @returns status and body of what administrators' programs get */
    async function atEntrance(path: string, token: string): Promise<[number, string]> {
      const url = `https://a.example:${traefik.port}${path}`;
      const answer = await fetch(url, { dispatcher: agent, headers: { authorization: `Bearer ${token}` } });
      return [answer.status, await answer.text()];
    }

    const untilAnswered = (what: string, path: string, token: string, status: number, word = "") =>
      until(what, async () => {
        const [answered, text] = await atEntrance(path, token);
        if (answered === status && text.includes(word)) return true;
        throw new Error(`${answered} ${text.slice(0, 300)}`);
      });

    beforeAll(async () => {
      const className = cluster.namespace;
      const ingress = { enabled: true, className, tlsSecret: "tls" };
      const trustedProxies = [TESTS.ipBlock.cidr];
      await cluster.install({
        console: { enabled: true, url: `https://${CONSOLE}`, trustedProxies, ingress },
        gateway: {
          ...PATIENT.gateway,
          trustedProxies,
          adminAccess: { enabled: true, ingress: { ...ingress, hosts: ["*.example"] } },
        },
        networkPolicies: { ...NETWORK.networkPolicies, consoleFrom: [TESTS], adminAccessFrom: [TESTS] },
      });
      const authority = await Authority.make();
      await cluster.apply(ingressObjects(className, await authority.issue([CONSOLE, "a.example"])));
      traefik = await Traefik.start(cluster.namespace);
      agent = new Agent({
        connect: {
          ca: authority.pem,
          lookup: (_host, { all }, done) =>
            all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4),
        },
      });
      browser = await startBrowser([`--host-resolver-rules=MAP ${CONSOLE}:443 127.0.0.1:${traefik.port}`]);
      view = await openView(browser, `https://${CONSOLE}`, { trustsAnyCertificate: true });
      await cluster.createTenant("a");
      await cluster.running("a");
      ada = await cluster.register("a", "ada");
      await cluster.api("POST", "/v1/tenants/a/users/ada/make-admin", { admin: true });
    }, 8 * MINUTES);
    afterAll(async () => {
      await view?.close();
      await browser?.close();
      await agent?.destroy();
      await traefik?.close();
      await kubectl("delete", "ingressclass", cluster.namespace, "--ignore-not-found");
      await cluster.close();
    }, 5 * MINUTES);

    it(
      "a person signs in to the console and opens a tenant to its administrators, who come in by the chart's entrance",
      async () => {
        const users = "/_synapse/admin/v2/users";
        const own = ada.client.getAccessToken()!;
        await untilAnswered("the entrance is there", users, own, 403, "not open to administrators");
        const { page } = view;
        await until("the console is there", async () => {
          const answer = await fetch(`https://${CONSOLE}:${traefik.port}/`, { dispatcher: agent });
          if (answer.status === 200) return true;
          throw new Error(`${answer.status} ${(await answer.text()).slice(0, 300)}\n${traefik.said.slice(-2000)}`);
        });
        await signIn(view, await cluster.token(), "/tenants");
        await page.getByRole("link", { name: "a", exact: true }).click();
        const card = page.getByRole("region", { name: "Its administrators" });
        await card.getByRole("button", { name: "Open …" }).click();
        await page.getByRole("dialog").getByRole("button", { name: "Open", exact: true }).click();
        await page.getByText("https://a.example").first().waitFor();
        await untilAnswered("she comes in", users, own, 200, "@ada:a.example");
        expect((await atEntrance(users, "of-nobody"))[0]).toBe(401);
        // It leads to what administrators need, and the gateway's other port to all but that.
        expect((await atEntrance("/_matrix/client/versions", own))[0]).toBe(404);
        const { status } = await fetch(`${cluster.urlOf("a")}${users}`, { dispatcher: cluster.agent });
        expect(status).toBe(403);
        // The address that counts is the one that the ingress controller saw.
        await cluster.api("PUT", "/v1/tenants/a/admin-access", { allowedNetworks: ["198.51.100.0/24"] });
        await untilAnswered("others do not", users, own, 403, "not open to administrators");
        await cluster.api("PUT", "/v1/tenants/a/admin-access", { allowedNetworks: ["127.0.0.0/8"] });
        await untilAnswered("she comes in again", users, own, 200);
        const audit = await page.evaluate<string>("fetch('/v1/audit').then((answer) => answer.text())");
        const entries = audit
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as AuditEntry);
        expect(entries.find(({ action }) => action === "openAdminAccess")).toMatchObject({ client: "127.0.0.1" });
      },
      5 * MINUTES,
    );

    it(
      "no pod reaches the console or the entrance past the ingress controller",
      async () => {
        expect(await knock(cluster, "synapse-shards-gateway", 8008)).toBe("open");
        expect(await knock(cluster, "synapse-shards-gateway-admin", 8449)).toBe("closed");
        expect(await knock(cluster, "synapse-shards-controller", 8011)).toBe("closed");
      },
      2 * MINUTES,
    );
  },
);
