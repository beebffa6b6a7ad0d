// Numbers, sizes and times in words, and elements made of text alone: no text from outside ever becomes markup.

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  let unit = 0;
  let amount = count;
  while (amount >= 1024 && unit < UNITS.length - 1) { amount /= 1024; unit += 1; }
  if (unit === 0) return count === 1 ? "1 byte" : `${count} bytes`;
  return `${amount < 10 ? amount.toFixed(1) : Math.round(amount)} ${UNITS[unit]}`;
}

export function count(number, noun, plural = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
}

/** A duration in one unit: "4 minutes". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return count(whole, "second");
  if (whole < 90 * 60) return count(Math.round(whole / 60), "minute");
  if (whole < 36 * 3600) return count(Math.round(whole / 3600), "hour");
  return count(Math.round(whole / 86400), "day");
}

export function ago(seconds) {
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

export function clock(time) {
  return new Date(time).toISOString().slice(11, 19);
}

/** An element with text or elements in it; attributes are properties of our own, never data's names. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function drawn(tag, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

/** Text shown safely: what is invisible or turns the direction of writing is spelled out. */
export function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu,
    (char) => `\\u{${char.codePointAt(0).toString(16)}}`);
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
