import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium, type Browser, type Page } from "playwright-core";
import { afterAll, beforeAll, expect } from "vitest";
import { ensureConsole } from "../../../console/build.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** A browser of this machine; undefined where there is none. `.ci/run` installs one. */
export function browserProgram(): string | undefined {
  return NAMES.find((name) => spawnSync(name, ["--version"]).status === 0);
}

export async function startBrowser(more: string[] = []): Promise<Browser> {
  const found = spawnSync("which", [browserProgram() ?? ""])
    .stdout.toString()
    .trim();
  // Its sandbox needs privileges that root in a container has not; what it opens here is our own.
  return chromium.launch({
    executablePath: found,
    args: ["--no-sandbox", "--disable-gpu", ...more],
    timeout: PATIENCE_MS,
  });
}

/** One browser for the tests of a file, with the console built. @returns it, from the first test on */
export function useBrowser(): () => Browser {
  let browser: Browser | undefined;
  beforeAll(async () => {
    await ensureConsole();
    browser = await startBrowser();
  });
  afterAll(() => browser?.close());
  return () => browser!;
}

export interface View {
  page: Page;
  /** @throws where the page complained: of errors, or of what the policy of the pages kept it from */
  close(): Promise<void>;
}

export interface ViewOptions {
  theme?: "light" | "dark";
  width?: number;
  height?: number;
  /** Of an authority that the browser does not know. */
  trustsAnyCertificate?: boolean;
}

/** @param url of the API */
export async function openView(browser: Browser, url: string, options: ViewOptions = {}): Promise<View> {
  const context = await browser.newContext({
    baseURL: url,
    colorScheme: options.theme ?? "light",
    viewport: { width: options.width ?? 1280, height: options.height ?? 800 },
    reducedMotion: "reduce",
    ignoreHTTPSErrors: options.trustsAnyCertificate ?? false,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(`${error.name}: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    // Of an answer that a test is after; everything else the browser says is a fault.
    if (message.text().startsWith("Failed to load resource")) return;
    complaints.push(message.text());
  });
  const close = async () => {
    await context.close();
    if (complaints.length > 0) throw new Error(`the page complained: ${complaints.join("; ")}`);
  };
  return { page, close };
}

export async function signIn({ page }: View, token: string, path = "/"): Promise<void> {
  await page.goto(path);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await page.getByRole("navigation", { name: "Screens" }).waitFor();
}

/** Whether people with whatever ability can use the page, as far as a program can tell: WCAG 2.2, A and AA. */
export async function expectAccessible(page: Page): Promise<void> {
  // Through the debugger, which the pages' policy does not bind.
  if (!(await page.evaluate("'axe' in globalThis"))) await page.evaluate(AXE);
  const violations = await page.evaluate(async () => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
    const { axe } = globalThis as unknown as {
      axe: {
        run(
          options: object,
        ): Promise<{ violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[] }>;
      };
    };
    const found = await axe.run({ runOnly: { type: "tag", values: tags } });
    return found.violations.map(
      ({ id, nodes }) => `${id}: ${nodes.map((n) => `${n.html} ${n.failureSummary}`).join("\n")}`,
    );
  });
  expect(violations).toEqual([]);
}
