import { expect, it, vi } from "vitest";
import { Controller } from "../../src/controller/controller.ts";
import { HistoryRecorder } from "../../src/controller/history/history-recorder.ts";
import { MemoryHistory } from "../../src/controller/history/memory-history.ts";
import { UsageRecorder } from "../../src/controller/usage/usage-recorder.ts";
import { FakeProcess, FakeWorld } from "../support/fake-world.ts";

// Guards against: loops that still work after the lease is given back, because a plot could not be written before they were closed.
it("writes the history for the plots after everything else has ended", async () => {
  const world = new FakeWorld();
  const process = new FakeProcess(world);
  const { context } = process;
  const { reader, clock, log } = context;
  const recorder = new UsageRecorder({ history: world.store.usage, reader, clock, log });
  const history = new HistoryRecorder({ store: new MemoryHistory(), clock, log });
  Object.assign(context, { recorder, history });
  const controller = new Controller(context);
  await controller.start();
  const ended: string[] = [];
  const track = (what: string, part: { close(): Promise<void> }) => {
    const close = part.close.bind(part);
    vi.spyOn(part, "close").mockImplementation(async () => {
      await close();
      ended.push(what);
    });
  };
  track("usage", recorder);
  track("history", history);
  await controller.stop();
  process.kill();
  expect(ended).toEqual(["usage", "history"]);
});
