"use strict";
// Every figure as a file: SVG as it stands, PNG at two pixels for one.
const save = (name, blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a busy browser begins to save late
};
const png = (svg, blob, name) => {
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = 2 * svg.viewBox.baseVal.width;
    canvas.height = 2 * svg.viewBox.baseVal.height;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((found) => save(name, found), "image/png");
    URL.revokeObjectURL(image.src);
  };
  image.src = URL.createObjectURL(blob);
};
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg");
  for (const kind of ["svg", "png"]) {
    const button = document.createElement("a");
    button.className = "save";
    button.textContent = kind.toUpperCase();
    button.tabIndex = 0;
    button.setAttribute("role", "button");
    const act = () => {
      const blob = new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" });
      const name = `${figure.dataset.file}.${kind}`;
      if (kind === "svg") save(name, blob);
      else png(svg, blob, name);
    };
    button.addEventListener("click", act);
    button.addEventListener("keydown", (event) => event.key === "Enter" && act());
    figure.querySelector("h3").append(button);
  }
}
