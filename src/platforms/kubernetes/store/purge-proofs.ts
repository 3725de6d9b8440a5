import { CoreV1Api, type KubeConfig, type V1Secret } from "@kubernetes/client-node";
import { deletionId, proofAfter, type PurgeProof } from "../../../model/deleted-tenant.ts";
import { UserError } from "../../../model/errors.ts";
import { attempt, retrying } from "../api-error.ts";
import { apiClient } from "../client.ts";
import { decode } from "./labelled-secrets.ts";

/** On each of them: the cluster. */
const LABEL = "synapse-shards.io/purges-of";
const KEY = "proofs.jsonl";
/** Kubernetes takes up to 1 MiB in an object; a proof is less than 1 KiB. */
const MOST_BYTES = 512 * 1024;
/** A proof is asked for again soon after, if ever: by whoever goes on with what was interrupted. */
const LOOKED_BACK = 2;

export interface PurgeProofsOptions {
  config: KubeConfig;
  namespace: string;
  clusterId: string;
  /** A new Secret is begun beyond that. */
  mostBytes?: number;
}

/**
 * The proofs of what was removed, in Secrets that are filled one after the other. A write names the version that it is based on, so that of two
 * controllers one is refused, and the chain of hashes has no forks.
 */
export class PurgeProofs {
  readonly #options: PurgeProofsOptions;
  readonly #api: CoreV1Api;

  constructor(options: PurgeProofsOptions) {
    this.#options = options;
    this.#api = apiClient(options.config, CoreV1Api);
  }

  async add(given: Omit<PurgeProof, "previous" | "sha256">): Promise<PurgeProof> {
    const secrets = await this.#list();
    const recent = secrets.slice(-LOOKED_BACK).flatMap(proofsIn);
    const known = recent.find((proof) => deletionId(proof) === deletionId(given));
    if (known) return known;
    const proof = proofAfter(recent.at(-1)?.sha256 ?? "", given);
    const last = secrets.at(-1);
    const text = textOf(last);
    const line = `${JSON.stringify(proof)}\n`;
    const isFull = text.length + line.length > (this.#options.mostBytes ?? MOST_BYTES);
    await (last && !isFull ? this.#replace(last, text + line) : this.#create(last ? numberOf(last) + 1 : 0, line));
    return proof;
  }

  /** Oldest first. */
  async newest(limit: number): Promise<PurgeProof[]> {
    return (await this.#list()).flatMap(proofsIn).slice(-limit);
  }

  async #list(): Promise<V1Secret[]> {
    const { namespace, clusterId } = this.#options;
    const { items } = await attempt("list the Secrets of purges", () =>
      retrying(() => this.#api.listNamespacedSecret({ namespace, labelSelector: `${LABEL}=${clusterId}` })),
    );
    return items.toSorted((a, b) => numberOf(a) - numberOf(b));
  }

  async #replace(secret: V1Secret, text: string): Promise<void> {
    const { namespace } = this.#options;
    const name = secret.metadata?.name ?? "";
    await attempt(`write the Secret ${name}`, () =>
      retrying(() =>
        this.#api.replaceNamespacedSecret({ namespace, name, body: { ...secret, stringData: { [KEY]: text } } }),
      ),
    );
  }

  async #create(number: number, text: string): Promise<void> {
    const { namespace, clusterId } = this.#options;
    const name = `${clusterId}.purges.${number}`;
    const body = { metadata: { name, namespace, labels: { [LABEL]: clusterId } }, stringData: { [KEY]: text } };
    await attempt(`make the Secret ${name}`, () =>
      retrying(() => this.#api.createNamespacedSecret({ namespace, body })),
    );
  }
}

/** Earlier versions named them without dots, with which a tenant's owner may name a Secret. */
function numberOf({ metadata }: V1Secret): number {
  return Number(/[-.](\d+)$/.exec(metadata?.name ?? "")?.[1] ?? 0);
}

function textOf(secret: V1Secret | undefined): string {
  return decode(secret?.data?.[KEY] ?? "");
}

function proofsIn(secret: V1Secret): PurgeProof[] {
  const lines = textOf(secret)
    .split("\n")
    .filter((line) => line !== "");
  try {
    return lines.map((line) => JSON.parse(line) as PurgeProof);
  } catch (error) {
    throw new UserError("Environment", `the Secret ${secret.metadata?.name} has proofs of purges that cannot be read`, {
      cause: error,
    });
  }
}
