// What the page holds as data: its constants, and values that are unpacked when they are needed.

// The constants that Python's side of the page uses too.
export const CONSTANTS = JSON.parse(document.getElementById("constants").textContent);

export async function unpack(name) {
  const packed = document.getElementById(`data-${name}`).textContent;
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

export const unpackJson = async (name) => JSON.parse(await unpack(name));
