// An SVG document as a PNG file: drawn once per request on a canvas, and saved under a name.

const saved = new Set();

function save(blob, name) {
  const link = document.createElement("a"), url = URL.createObjectURL(blob);
  Object.assign(link, { href: url, download: name });
  link.click();
  URL.revokeObjectURL(url);
}

async function drawPicture(svg, scale) {
  const url = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" })), image = new Image();
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: image.naturalWidth * scale, height: image.naturalHeight * scale });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false; // a block of a map is a block
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}

export default function ({ parentElement, data }) {
  const said = parentElement.querySelector("[data-el=said]");
  if (saved.has(data.request)) return;
  saved.add(data.request);
  drawPicture(data.svg, data.scale).then(
    (blob) => { save(blob, data.name); said.textContent = `${data.name} is saved`; },
    (error) => { said.textContent = `The picture could not be drawn: ${error.message}; save the SVG.`; },
  );
}
