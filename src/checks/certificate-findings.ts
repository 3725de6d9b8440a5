import type { Finding } from "../model/tenant-check.ts";
import type { Shown } from "./network.ts";

const DAY_MS = 86_400_000;
/** Of its life, the part that is left when it should have been renewed long ago: a month of three, two days of a week. */
const SOON_PART = 0.15;
const SOON_MOST_MS = 21 * DAY_MS;

const WRONG_NAME = "ERR_TLS_CERT_ALTNAME_INVALID";
const OVER = new Set(["CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID"]);

/** What there is to say of the certificate that was shown for a name. @param isLocal the cluster's own authority is enough */
export function certificateFinding(
  name: string,
  { certificate, problem, isOwn }: Shown,
  { now, isLocal }: { now: number; isLocal: boolean },
): Finding {
  const ends = Date.parse(certificate.valid_to);
  const begins = Date.parse(certificate.valid_from);
  const date = new Date(ends).toISOString().slice(0, 10);
  const get = `give the gateway one for ${name}: by ACME (certificates.acme), or as files (docs/gateway.md)`;
  const wrong = (code: Finding["code"], message: string, remedy = get): Finding => ({
    code,
    severity: "error",
    subject: name,
    message,
    remedy,
  });
  if (problem === WRONG_NAME)
    return wrong("certificate-wrong-name", `the certificate is for ${certificate.subjectaltname ?? "other names"}`);
  if (problem !== undefined && OVER.has(problem))
    return wrong(
      "certificate-expired",
      `the certificate is valid from ${certificate.valid_from} to ${certificate.valid_to}`,
    );
  if (problem !== undefined)
    return wrong(
      "certificate-untrusted",
      `the chain leads to no authority that the world trusts (${problem})`,
      `${get}; intermediate certificates have to be in the file too`,
    );
  if (isOwn)
    return {
      ...wrong(
        "certificate-own-authority",
        "the certificate is of the cluster's own authority, which only this cluster trusts",
      ),
      severity: isLocal ? "info" : "error",
    };
  if (ends - now < Math.min(SOON_MOST_MS, SOON_PART * (ends - begins)))
    return {
      ...wrong(
        "certificate-ends-soon",
        `the certificate ends on ${date}`,
        "see why it was not renewed: `certificates list`, or whoever brings the files",
      ),
      severity: "warning",
    };
  return { code: "certificate-ok", severity: "ok", subject: name, message: `the certificate is valid until ${date}` };
}
