import { afterEach, expect, test } from "vitest";
import { LEVELS, MOST_SHARDS, type Sample } from "../../../src/model/history.ts";
import { packedSamples, samplesIn } from "../../../src/platforms/kubernetes/history/history-object.ts";
import { ShelfHistory } from "../../../src/platforms/kubernetes/history/shelf-history.ts";
import { describeHistoryStoreContract } from "../../ports/history-store-contract.ts";
import { FakeShelves, type ShelfCall, type ShelfFault } from "./support/fake-shelf.ts";

const [{ step: MINUTE }, { step: HOUR }] = LEVELS;
/** What Kubernetes takes in an object. */
const MOST_BYTES = 1024 * 1024;

const opened: ShelfHistory[] = [];
afterEach(async () => {
  for (const history of opened.splice(0)) await history.close();
});

async function open(shelves: FakeShelves, fault?: (call: ShelfCall, name: string) => ShelfFault) {
  const problems: string[] = [];
  const shelf = shelves.client(fault);
  const history = await ShelfHistory.open({ shelf, clusterId: "shards", onError: (text) => void problems.push(text) });
  opened.push(history);
  const minutes = async () => (await history.read(MINUTE, 0, Number.MAX_SAFE_INTEGER)).map(({ at }) => at / MINUTE);
  const write = (at: number) => history.write([{ step: MINUTE, at: at * MINUTE, count: 1, values: { load: at } }]);
  return { history, problems, minutes, write };
}

describeHistoryStoreContract("Objects of Kubernetes", async () => {
  const { history } = await open(new FakeShelves());
  return { store: history, close: () => history.close() };
});

test("the next leader has what the one before wrote down, in an object for each level, and writes only what changed", async () => {
  const shelves = new FakeShelves();
  const former = await open(shelves);
  await former.write(1);
  await former.history.write([{ step: HOUR, at: HOUR, count: 60, values: { load: 0.25 } }]);
  await former.history.close();
  expect([...shelves.objects.keys()]).toEqual(["shards.history.minutes", "shards.history.hours"]);
  const next = await open(shelves);
  expect(await next.history.read(HOUR, 0, 9 * HOUR)).toEqual([{ at: HOUR, count: 60, values: { load: 0.25 } }]);
  const versions = () => [...shelves.objects.values()].map(({ version }) => version);
  const before = versions();
  await next.history.flush();
  expect(versions()).toEqual(before);
  await next.write(2);
  await next.history.flush();
  expect(versions().filter((version) => before.includes(version))).toHaveLength(1);
  expect(await next.minutes()).toEqual([1, 2]);
});

// Guards against: a leader that stops keeps its lease, or its loops, because a plot cannot be written.
test("the end does not wait for an API server that does not answer, and begins no further write", async () => {
  const shelves = new FakeShelves();
  const shelf = shelves.client();
  const asked: string[] = [];
  let answer = () => {};
  const create: typeof shelf.create = async (name, data) => {
    asked.push(name);
    await new Promise<void>((done) => (answer = done));
    return shelf.create(name, data);
  };
  const problems: string[] = [];
  const onError = (text: string) => void problems.push(text);
  const history = await ShelfHistory.open({ shelf: { ...shelf, create }, clusterId: "shards", onError, closeMs: 1 });
  for (const step of [MINUTE, HOUR]) await history.write([{ step, at: step, count: 1, values: { load: 1 } }]);
  await history.close();
  expect(problems).toEqual([expect.stringContaining("not written to its end")]);
  answer();
  await history.flush();
  expect(asked).toEqual(["shards.history.minutes"]);
});

test("two leaders that wrote at the same time both leave what they saw", async () => {
  const shelves = new FakeShelves();
  const [former, leader] = [await open(shelves), await open(shelves)];
  await leader.write(2);
  await former.write(1);
  await former.history.close();
  await leader.history.flush();
  expect(leader.problems).toHaveLength(1);
  await leader.history.flush();
  expect(await (await open(shelves)).minutes()).toEqual([1, 2]);
});

test("an API server that was away at the start, or lost an answer, costs nothing", async () => {
  const shelves = new FakeShelves();
  const former = await open(shelves);
  await former.write(1);
  await former.history.close();
  let failing: ShelfFault = "before";
  const next = await open(shelves, () => failing);
  expect(next.problems[0]).toContain("shards.history.minutes cannot be read");
  await next.write(2);
  failing = "after";
  await next.history.flush();
  failing = undefined;
  // The first finds that there is something, the second writes.
  await next.history.flush();
  await next.history.flush();
  expect(await (await open(shelves)).minutes()).toEqual([1, 2]);
});

test("an object that cannot be read begins again", async () => {
  const shelves = new FakeShelves();
  shelves.put("shards.history.minutes", { "samples.json.gz": Buffer.from("no gzip") });
  const next = await open(shelves);
  expect(next.problems[0]).toContain("the Secret shards.history.minutes cannot be read");
  await next.write(1);
  await next.history.flush();
  expect(await (await open(shelves)).minutes()).toEqual([1]);
});

test("the largest level with as many shards as are kept fits into an object", () => {
  const series = [
    ...Array.from({ length: 20 }, (_, index) => `cluster${index}`),
    ...Array.from({ length: MOST_SHARDS }, (_, index) => [
      `shard/1.163.2-${index}/load`,
      `shard/1.163.2-${index}/memory`,
    ]),
  ].flat();
  const most = Math.max(...LEVELS.map(({ step, kept }) => kept / step + 1));
  const samples = Array.from({ length: most }, (_, index): Sample => ({
    at: Date.now() + index * MINUTE,
    count: 1,
    values: Object.fromEntries(series.map((name) => [name, Math.random() * 10 ** Math.floor(Math.random() * 9)])),
  }));
  const packed = packedSamples(samples);
  expect(packed.length).toBeLessThan(MOST_BYTES);
  expect(samplesIn(packed)).toHaveLength(most);
});
