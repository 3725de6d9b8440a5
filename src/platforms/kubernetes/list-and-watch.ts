import { type KubeConfig, type KubernetesListObject, type KubernetesObject, Watch } from "@kubernetes/client-node";
import { isStatus } from "./api-error.ts";

const END_OF_INITIAL = "k8s.io/initial-events-end";

/**
 * Everything there is, read from a watch that is ended once the initial events are complete. The API server takes them from its memory, object by object. Pages of
 * custom resources it reads from etcd, which takes it fifteen times the processor time; one list of 20,000 tenants is 70 MB at once, for both sides.
 * @throws an error with a `statusCode` where the API server is of a version that does not do it (before Kubernetes 1.34, mostly)
 */
async function streamed<T extends KubernetesObject>(
  config: KubeConfig,
  path: string,
  labelSelector: string | undefined,
): Promise<KubernetesListObject<T>> {
  const query = {
    sendInitialEvents: true,
    resourceVersionMatch: "NotOlderThan",
    allowWatchBookmarks: true,
    labelSelector,
  };
  const found = new Map<string, T>();
  const watch = new Watch(config);
  let begun: Promise<AbortController> | undefined;
  try {
    return await new Promise((resolve, reject) => {
      const hear = (type: string, object: T & { message?: string }) => {
        const { uid = "", annotations = {}, resourceVersion } = object.metadata ?? {};
        if (type === "BOOKMARK" && annotations[END_OF_INITIAL] === "true")
          resolve({ metadata: { resourceVersion }, items: [...found.values()] });
        else if (type === "ERROR") reject(new Error(object.message ?? "the watch failed"));
        else if (type === "DELETED") found.delete(uid);
        else if (type !== "BOOKMARK") found.set(uid, lean(object));
      };
      const done = (error: unknown) => reject(error ?? new Error("the API server ended the watch before it told all"));
      begun = watch.watch(path, query, hear, done);
      begun.catch(reject);
    });
  } finally {
    (await begun)?.abort();
  }
}

/** All that there is: streamed, where that is possible, else page by page, with the API server's own words where it refuses. */
export async function all<T extends KubernetesObject>(
  config: KubeConfig,
  path: string,
  list: ListOfPage<T>,
  labelSelector: string | undefined,
): Promise<KubernetesListObject<T>> {
  try {
    return await streamed<T>(config, path, labelSelector);
  } catch (error) {
    // Too busy for this one, it would be for pages, which cost more.
    const { statusCode = 400 } = error as { statusCode?: number };
    if (statusCode === 429 || statusCode >= 500) throw error;
    return allPages(list);
  }
}

/**
 * Objects in one answer. All of 100,000 tenants' Secrets would be a text of more than half a gigabyte, which is more than JavaScript has in one; and a
 * leader that reads for long at a time cannot say meanwhile that it still leads.
 */
const PAGE = 1_000;
/** A list whose pages take longer than the API server keeps what it was made of begins again. */
const BEGINNINGS = 3;

/** Which part of a list is asked for. */
export interface ListPage {
  limit: number;
  _continue?: string;
}

export type ListOfPage<T extends KubernetesObject> = (page: ListPage) => Promise<KubernetesListObject<T>>;

/** All that there is, page by page. */
export async function allPages<T extends KubernetesObject>(
  list: ListOfPage<T>,
  limit = PAGE,
): Promise<KubernetesListObject<T>> {
  for (let beginnings = 1; ; beginnings++) {
    try {
      return await fromTheBeginning(list, limit);
    } catch (error) {
      if (!isStatus(error, 410) || beginnings === BEGINNINGS) throw error;
    }
  }
}

async function fromTheBeginning<T extends KubernetesObject>(
  list: ListOfPage<T>,
  limit: number,
): Promise<KubernetesListObject<T>> {
  const items: T[] = [];
  for (let token = ""; ;) {
    const page = await list({ limit, ...(token === "" ? {} : { _continue: token }) });
    for (const item of page.items) items.push(lean(item));
    token = continuationOf(page);
    // Each page is of the same moment.
    if (token === "") return { ...page, items };
  }
}

/** The client renames the field in lists whose type it knows. */
function continuationOf({ metadata }: { metadata?: object }): string {
  const { _continue, continue: plain } = (metadata ?? {}) as { _continue?: string; continue?: string };
  return _continue ?? plain ?? "";
}

/**
 * Without who wrote which field, which is a third of an object and nobody here reads. A write without it leaves what the API server has of it.
 * @returns the object itself
 */
export function lean<T extends KubernetesObject>(object: T): T {
  delete object.metadata?.managedFields;
  return object;
}

/** The library gives up a watch that is silent for 30 seconds: it may have died. The API server ends it in order before that. */
const WATCH_SECONDS = 25;

/**
 * The library's watch, which also asks for bookmarks: where nothing changes of what is watched, they say how far the watch has come. Without them it
 * begins again where it last heard something; once the API server has forgotten that, because others of the kind have changed, everything is listed again.
 */
export class BookmarkedWatch extends Watch {
  override watch(...[path, query, callback, done]: Parameters<Watch["watch"]>): ReturnType<Watch["watch"]> {
    const begun = performance.now();
    const asked = { ...query, allowWatchBookmarks: true, timeoutSeconds: WATCH_SECONDS };
    return super.watch(path, asked, callback, (error: unknown) => {
      // Its time is over, and it goes on at once; after another end of the connection the library waits.
      const isOver = !error && performance.now() - begun >= (WATCH_SECONDS - 1) * 1000;
      done(isOver ? new DOMException("the time of this watch is over", "TimeoutError") : error);
    });
  }
}
