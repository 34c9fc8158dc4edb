// Small helpers of every part: elements by id, made, and kept.

export const $ = id => document.getElementById(id);

export function set(element, text) { if (element.textContent !== text) element.textContent = text; }
export function count(n, what) { return `${n} ${what}${n === 1 ? "" : "s"}`; }
export function make(tag, kind, text) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

// One element a key, kept while its key is there: a button that is held down must not be made anew.
export function keyed(parent, keys, create, update) {
  const old = parent.keyed ??= new Map();
  for (const [key, element] of old) if (!keys.includes(key)) { element.remove(); old.delete(key); }
  keys.forEach((key, index) => {
    if (!old.has(key)) old.set(key, create(key));
    const element = old.get(key);
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
    update(element, key);
  });
}
