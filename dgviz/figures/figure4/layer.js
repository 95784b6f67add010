// Figure 4 below charts of the spectrum that the page draws: the mounting of the Layer page.

const figures = new WeakMap();

export default function ({ parentElement, data, setStateValue }) {
  let figure = figures.get(parentElement);
  if (!figure || !figure.root.isConnected) {
    if (figure) figure.destroy();
    figure = new Figure4(parentElement);
    figures.set(parentElement, figure);
  }
  figure.update(decodePayload(data), setStateValue);
  return () => { figure.destroy(); figures.delete(parentElement); };
}
