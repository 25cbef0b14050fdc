// The course's one viewer. The same `render` runs in a notebook (anywidget hands it the model) and in an exported page (a
// stub model): everything happens here, so no kernel is needed. content = {label, steps, choiceLabel, columns, size, alt, items:
// [{name, panels: [{title, caption, colour, readouts, width, height, count, columns, margin, sheet}]}]}; a sheet is one
// picture that holds `count` frames, `columns` to a row, each with a `margin` around it. Live exploration (live.py) adds
// controls: [{label, options, slider}]; what they are set to goes to the kernel as `chosen`, and it answers with content.

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
  const width = shownWidth(panel, size);
  figure.style.width = `${width}px`;
  figure.classList.toggle("timenet-large", width > 200); // stands alone on a phone
  const title = element("div", "timenet-title", figure);
  const canvas = element("canvas", "timenet-picture", figure, { role: "img" });
  canvas.style.width = `${width}px`;
  const readout = element("div", "timenet-readout", figure);
  const caption = element("figcaption", "timenet-caption", figure);
  return { figure, title, canvas, readout, caption, shown: null };
}

// A control keeps its keys for itself: JupyterLab would swallow the arrows.
function keepKeys(control) {
  control.addEventListener("keydown", (event) => event.stopPropagation());
}

function makeList(bar, label) {
  const box = element("label", "timenet-choice", bar);
  box.append(`${label} `);
  const input = element("select", "", box);
  keepKeys(input);
  function show(index, options) {
    const there = Array.from(input.options, (option) => option.text);
    if (there.join("\n") !== options.join("\n")) {
      input.replaceChildren(...options.map((text, value) => new Option(text, value)));
    }
    input.value = index;
  }
  return { input, show };
}

function makeSlider(bar, label, options) {
  const box = element("label", "timenet-slider", bar);
  const value = element("output", "timenet-value", box);
  element("span", "timenet-end", box).textContent = options[0];
  const input = element("input", "", box, { type: "range", min: 0, max: options.length - 1, step: 1, "aria-label": label });
  element("span", "timenet-end", box).textContent = options[options.length - 1];
  keepKeys(input);
  value.style.minWidth = `${label.length + 3 + Math.max(...options.map((text) => text.length))}ch`;
  function show(index) {
    const now = `${label} = ${options[index]}`;
    input.value = index;
    input.setAttribute("aria-valuetext", now);
    value.textContent = now;
  }
  return { input, show };
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
  let content = model.get("content");
  const root = element("div", "timenet-viewer", el, { role: "group", "aria-label": content.alt });
  const bar = element("div", "timenet-controls", root);
  const list = content.items.length > 1 ? makeList(bar, content.choiceLabel) : null;
  const slider = content.steps.length > 1 ? makeSlider(bar, content.label, content.steps) : null;
  const live = (content.controls ?? []).map((each) => (each.slider ? makeSlider : makeList)(bar, each.label, each.options));
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
    slider?.show(step);
    list?.show(model.get("item"), content.items.map((each) => each.name));
    live.forEach((control, index) => control.show(model.get("chosen")[index], content.controls[index].options));
    item.panels.forEach((panel, index) => {
      const view = views[index];
      const readout = panel.readouts[Math.min(step, panel.readouts.length - 1)] ?? "";
      view.figure.style.borderTopColor = panel.colour;
      view.title.textContent = panel.title;
      view.readout.textContent = readout;
      view.readout.hidden = panel.readouts.length === 0;
      view.caption.textContent = panel.caption;
      view.canvas.setAttribute("aria-label", [panel.title, item.name, now, readout].filter(Boolean).join(", "));
      view.shown = imageOf(panel);
      drawFrame(view, panel, view.shown, step);
    });
  }

  function put(name, value) {
    model.set(name, value);
    model.save_changes();
    update();
  }

  // A kernel has sent other pictures; the old ones stay in sight until these are decoded.
  function replace() {
    content = model.get("content");
    images.clear();
    update();
  }

  slider?.input.addEventListener("input", () => put("step", Number(slider.input.value)));
  list?.input.addEventListener("change", () => put("item", Number(list.input.value)));
  live.forEach(({ input }, index) => {
    input.addEventListener("input", () => put("chosen", model.get("chosen").with(index, Number(input.value))));
  });
  const listeners = { "change:step": update, "change:item": update, "change:chosen": update, "change:content": replace };
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);
  update();
  return () => {
    for (const [event, listener] of Object.entries(listeners)) model.off(event, listener);
  };
}

export default { render };
