// The course's one viewer. The same `render` runs in a notebook (anywidget hands it the model) and in an exported page (a stub
// model): everything happens here, so no kernel is needed. content = {label, steps, choiceLabel, columns, size, alt, items:
// [{name, panels: [{title, caption, colour, readouts, width, height, count, columns, margin, sheet}]}]}; a sheet is one
// picture that holds `count` frames, `columns` to a row, each with a `margin` around it.

const GAP = 12; // as in viewer.css

function element(tag, className, parent, attributes = {}) {
  const node = document.createElement(tag);
  node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

// The largest multiple of the frame, in halves, that fits into `size`: pixels stay crisp and nearly of one size.
function shownWidth(panel, size) {
  return panel.width * Math.max(1, Math.floor((2 * size) / panel.width) / 2);
}

function makePanel(panel, size, grid) {
  const figure = element("figure", "timenet-panel", grid);
  if (panel.colour) figure.style.borderTopColor = panel.colour;
  const width = shownWidth(panel, size);
  figure.style.width = `${width}px`;
  const title = element("div", "timenet-title", figure);
  const canvas = element("canvas", "timenet-picture", figure, { role: "img" });
  canvas.style.width = `${width}px`;
  const readout = element("div", "timenet-readout", figure);
  readout.hidden = panel.readouts.length === 0;
  const caption = element("figcaption", "timenet-caption", figure);
  return { figure, title, canvas, readout, caption, shown: null };
}

// A control keeps its keys for itself: JupyterLab would swallow the arrows.
function keepKeys(control) {
  control.addEventListener("keydown", (event) => event.stopPropagation());
}

function makeControls(content, root) {
  const bar = element("div", "timenet-controls", root);
  let select = null;
  if (content.items.length > 1) {
    const label = element("label", "timenet-choice", bar);
    label.append(`${content.choiceLabel} `);
    select = element("select", "", label);
    content.items.forEach((item, index) => {
      element("option", "", select, { value: index }).textContent = item.name;
    });
    keepKeys(select);
  }
  const label = element("label", "timenet-slider", bar);
  const value = element("output", "timenet-value", label);
  element("span", "timenet-end", label).textContent = content.steps[0];
  const slider = element("input", "", label, {
    type: "range", min: 0, max: content.steps.length - 1, step: 1, "aria-label": content.label,
  });
  element("span", "timenet-end", label).textContent = content.steps[content.steps.length - 1];
  keepKeys(slider);
  const widest = Math.max(...content.steps.map((text) => text.length));
  value.style.minWidth = `${content.label.length + 3 + widest}ch`;
  return { select, slider, value };
}

function drawFrame(view, panel, image, step) {
  if (!image.complete || view.shown !== image) return;
  const { canvas } = view;
  if (canvas.width !== panel.width) canvas.width = panel.width;
  if (canvas.height !== panel.height) canvas.height = panel.height;
  const frame = Math.min(step, panel.count - 1);
  const left = (frame % panel.columns) * (panel.width + 2 * panel.margin) + panel.margin;
  const top = Math.floor(frame / panel.columns) * (panel.height + 2 * panel.margin) + panel.margin;
  canvas.getContext("2d").drawImage(image, left, top, panel.width, panel.height, 0, 0, panel.width, panel.height);
}

function render({ model, el }) {
  const content = model.get("content");
  const root = element("div", "timenet-viewer", el, { role: "group", "aria-label": content.alt });
  const controls = makeControls(content, root);
  const grid = element("div", "timenet-grid", root);
  grid.style.maxWidth = `${content.columns * (shownWidth(content.items[0].panels[0], content.size) + GAP)}px`;
  const views = content.items[0].panels.map((panel) => makePanel(panel, content.size, grid));
  const images = new Map();

  function imageOf(panel) {
    if (!images.has(panel)) {
      const image = new Image();
      image.addEventListener("load", update);
      image.src = panel.sheet;
      images.set(panel, image);
    }
    return images.get(panel);
  }

  function update() {
    const step = model.get("step");
    const item = content.items[model.get("item")];
    const now = `${content.label} = ${content.steps[step]}`;
    controls.slider.value = step;
    controls.slider.setAttribute("aria-valuetext", now);
    controls.value.textContent = now;
    if (controls.select) controls.select.value = model.get("item");
    item.panels.forEach((panel, index) => {
      const view = views[index];
      const readout = panel.readouts[Math.min(step, panel.readouts.length - 1)] ?? "";
      view.title.textContent = panel.title;
      view.readout.textContent = readout;
      view.caption.textContent = panel.caption;
      view.canvas.setAttribute("aria-label", [panel.title, item.name, now, readout].filter(Boolean).join(", "));
      view.shown = imageOf(panel);
      drawFrame(view, panel, view.shown, step);
    });
  }

  function put(name, value) {
    model.set(name, Number(value));
    model.save_changes();
    update();
  }

  controls.slider.addEventListener("input", () => put("step", controls.slider.value));
  if (controls.select) controls.select.addEventListener("change", () => put("item", controls.select.value));
  model.on("change:step", update);
  model.on("change:item", update);
  update();
  return () => {
    model.off("change:step", update);
    model.off("change:item", update);
  };
}

export default { render };
