const NUMBER = new Intl.NumberFormat("en");
const TIME = new Intl.DateTimeFormat("en-GB", {
  day: "2-digit",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const MOMENT = new Intl.DateTimeFormat("en-GB", {
  day: "2-digit",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
});

export function count(value: number): string {
  return NUMBER.format(value);
}

/** With its noun: `1 tenant`, `2 tenants`. */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** A share of one, as a percentage without decimals. */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** A share of one, as a width in CSS. */
export function widthOf(share: number): string {
  return `${Math.min(1, share) * 100}%`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 || rest >= 100 ? Math.round(rest) : rest.toFixed(1)} ${units[unit]}`;
}

export function seconds(value: number): string {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 60 ? `${value.toFixed(1)} s` : duration(value);
}

export function duration(value: number): string {
  const steps: [number, string][] = [
    [86_400, "d"],
    [3_600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const at = steps.findIndex(([size]) => value >= size);
  if (at < 0) return "0 s";
  const [[size, unit], next] = [steps[at]!, steps[at + 1]];
  const first = Math.floor(value / size);
  const second = next ? Math.floor((value - first * size) / next[0]) : 0;
  return second > 0 ? `${first} ${unit} ${second} ${next![1]}` : `${first} ${unit}`;
}

/** @param at seconds of Unix time */
export function momentText(at: number): string {
  return MOMENT.format(new Date(at * 1000));
}

const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const HOUR = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** @param at seconds of Unix time @param step of the axis, in seconds: within a day it is the hour that tells them apart */
export function timeOnAxis(at: number, step: number): string {
  const time = new Date(at * 1000);
  const isMidnight = time.getHours() === 0 && time.getMinutes() === 0;
  return (step >= 86_400 || isMidnight ? DATE : HOUR).format(time);
}

export function clockTime(iso: string): string {
  return TIME.format(new Date(iso));
}
