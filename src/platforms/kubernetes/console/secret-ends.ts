import { CoreV1Api, type KubeConfig, type V1OwnerReference, type V1Secret } from "@kubernetes/client-node";
import { withEnded, type EndedSessions } from "../../../api/access/ended-sessions.ts";
import { attempt, isStatus, retrying } from "../api-error.ts";
import { apiClient } from "../client.ts";

const KEY = "ended-sessions.json";

export interface SecretEndsOptions {
  config: KubeConfig;
  namespace: string;
  name: string;
  owner: V1OwnerReference | undefined;
  labels: Record<string, string>;
}

/** Sessions that were signed out, in a Secret: the next leader reads it before it answers anybody. */
export class SecretEnds implements EndedSessions {
  readonly #options: SecretEndsOptions;
  readonly #api: CoreV1Api;
  #ended: Record<string, string> = {};
  /** Two that sign out at once are written one after the other. */
  #last: Promise<void> = Promise.resolve();

  private constructor(options: SecretEndsOptions) {
    this.#options = options;
    this.#api = apiClient(options.config, CoreV1Api);
  }

  /** @throws what keeps it from being read: sessions that were signed out would be good again */
  static async open(options: SecretEndsOptions): Promise<SecretEnds> {
    const ends = new SecretEnds(options);
    const { namespace, name } = options;
    try {
      const secret = await retrying(() => ends.#api.readNamespacedSecret({ namespace, name }));
      ends.#ended = endedIn(secret);
    } catch (error) {
      if (!isStatus(error, 404)) throw error;
    }
    return ends;
  }

  has(id: string): boolean {
    return Object.hasOwn(this.#ended, id);
  }

  add(id: string, until: Date, now: Date): Promise<void> {
    // Here at once, whatever becomes of the writing.
    this.#ended = withEnded(this.#ended, { id, until, now });
    const written = this.#last.then(() => this.#write());
    this.#last = written.catch(() => {});
    return written;
  }

  async #write(): Promise<void> {
    const { namespace, name, owner, labels } = this.#options;
    const body: V1Secret = {
      metadata: { name, namespace, labels, ...(owner ? { ownerReferences: [owner] } : {}) },
      type: "Opaque",
      stringData: { [KEY]: JSON.stringify(this.#ended) },
    };
    await attempt(`write the Secret ${name}`, () =>
      retrying(async () => {
        try {
          await this.#api.replaceNamespacedSecret({ namespace, name, body });
        } catch (error) {
          if (!isStatus(error, 404)) throw error;
          await this.#api.createNamespacedSecret({ namespace, body });
        }
      }),
    );
  }
}

function endedIn(secret: V1Secret): Record<string, string> {
  try {
    const text = Buffer.from(secret.data?.[KEY] ?? "", "base64").toString("utf8");
    return Object.fromEntries(
      Object.entries(JSON.parse(text) as object).filter(([, until]) => typeof until === "string"),
    ) as Record<string, string>;
  } catch {
    // Somebody wrote something else there; there is nothing to be had from it.
    return {};
  }
}
