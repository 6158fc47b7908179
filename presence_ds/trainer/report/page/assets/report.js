"use strict";
(() => {
  const root = document.documentElement;
  const page = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const ERRORS = 1; // of Vega's levels: it would warn of layers that are empty, such as the marks of a run without any
  const state = { x_axis: "step", from_share: 0, selected: "", run: 0 };
  const views = new Map(); // figure → promise of its Vega view

  // What is chosen survives a page that loads itself anew.
  const remember = (name, value) => { try { sessionStorage.setItem(`presence-${name}`, value); } catch { /* no storage */ } };
  const remembered = (name) => { try { return sessionStorage.getItem(`presence-${name}`); } catch { return null; } };

  function rows(name) {
    const columns = Object.entries(page.tables[name]);
    const length = columns.length ? columns[0][1].length : 0;
    return Array.from({ length }, (_, row) => Object.fromEntries(columns.map(([key, values]) => [key, values[row]])));
  }

  // Legends in as many columns as there is room for.
  const columnsOf = (figure) => Math.max(1, Math.floor(figure.clientWidth / 190));

  function config(figure) {
    const narrow = figure.clientWidth < 480;
    const font = getComputedStyle(document.body).fontFamily;
    const axis = {
      labelColor: "var(--muted)", titleColor: "var(--muted)", domainColor: "var(--rule)", tickColor: "var(--rule)",
      gridColor: "var(--rule)", labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, titlePadding: 8, tickCount: narrow ? 4 : 6,
      labelLimit: narrow ? 120 : 240,
    };
    return {
      font, background: null, view: { stroke: null }, axis,
      axisX: { labelFlush: true },
      axisY: { domain: false, ticks: false, titleAnchor: "end" },
      legend: {
        orient: "top", columns: columnsOf(figure), labelColor: "var(--text)", titleColor: "var(--muted)", labelFontSize: 12,
        titleFontSize: 12, titleFontWeight: 500, labelLimit: Math.min(figure.clientWidth - 90, 400), symbolStrokeWidth: 2, rowPadding: 4, columnPadding: 16,
        symbolSize: 90, clipHeight: 18, offset: 8,
      },
    };
  }

  // An axis that stands for what is chosen is named after it.
  function nameAxes(vega) {
    const visit = (part) => {
      for (const axis of part.axes ?? []) if (axis.title === page.axes.step && axis.scale === "x" && chosenAxis(vega)) axis.title = { signal: `(${JSON.stringify(page.axes)})[x_axis]` };
      (part.marks ?? []).forEach(visit);
    };
    visit(vega);
    return vega;
  }
  const chosenAxis = (vega) => (vega.signals ?? []).some((signal) => signal.name === "x_axis");

  async function embed(figure, before) {
    const plot = page.plots[figure.dataset.plot];
    const spec = structuredClone(plot.spec);
    spec.autosize = { type: "fit-x", contains: "padding" };
    spec.datasets = Object.fromEntries(plot.data.map((name) => [name, rows(name)]));
    const options = { actions: false, renderer: "svg", ast: true, logLevel: ERRORS, config: config(figure), patch: nameAxes };
    (await before)?.finalize();
    const { view } = await vegaEmbed(figure.querySelector(".plot"), spec, options);
    if (figure.dataset.plot === "loss") {
      view.addEventListener("click", (_, item) => {
        if (item?.datum?.key) choose(item.datum.key, true);
      });
    }
    if (isSwitched(figure)) await tell(view);
    return view;
  }

  function draw(figure) {
    figure.dataset.columns = columnsOf(figure);
    const view = embed(figure, views.get(figure)).catch((error) => {
      figure.querySelector(".plot").textContent = "This plot could not be drawn.";
      console.error(error);
    });
    views.set(figure, view);
    return view;
  }

  const isSwitched = (figure) => ["loss", "validation"].includes(figure.dataset.plot);

  function tell(view) {
    for (const [name, value] of Object.entries(state)) view.signal(name, value);
    return view.runAsync();
  }
  const tellAll = () => views.forEach((view, figure) => isSwitched(figure) && view.then((one) => one && tell(one)));

  const shown = (figure) => figure.offsetParent !== null;
  const drawShown = () => Promise.all(all("figure[data-plot]").filter(shown).map((one) => views.get(one) ?? draw(one)));

  function press(buttons, pressed) {
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === pressed)));
  }

  function showRun(number) {
    if (!all(`.of-run[data-run="${number}"]`).length) return;
    all(".of-run").forEach((one) => { one.hidden = one.dataset.run !== number; });
    const chooser = document.getElementById("run");
    if (chooser) chooser.value = number;
    const pressed = document.querySelector(`.of-run[data-run="${number}"] [data-step][aria-pressed="true"]`);
    state.selected = pressed?.dataset.step ?? "";
    state.run = Number(number);
    remember("run", number);
    tellAll();
    drawShown();
  }

  // Show the documents of a step: `key` is RUN-STEP.
  function choose(key, go) {
    const article = document.getElementById(`step-${key}`);
    if (!article) return;
    const within = article.closest(".of-run");
    all(".step", within).forEach((one) => { one.hidden = one !== article; });
    press(all("[data-step]", within), all("[data-step]", within).find((one) => one.dataset.step === key));
    remember("step", key);
    if (within.hidden) showRun(within.dataset.run);
    state.selected = key;
    tellAll();
    if (go) {
      article.scrollIntoView({ block: "nearest" });
      article.querySelector("h3").focus();
    }
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    press(all("button[data-theme]"), all("button[data-theme]").find((one) => one.dataset.theme === theme));
    remember("theme", theme);
  }

  function setSwitch(button) {
    const name = button.dataset.axis ? "x_axis" : "from_share";
    state[name] = button.dataset.axis ?? Number(button.dataset.from);
    press(all("button", button.parentElement), button);
    remember(name, button.dataset.axis ?? button.dataset.from);
    tellAll();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const link = event.target.closest("a[data-show]");
    if (link) showRun(link.dataset.show);
    if (!button) return;
    if (button.dataset.theme) setTheme(button.dataset.theme);
    else if (button.dataset.step) choose(button.dataset.step, false);
    else if (button.dataset.axis || button.dataset.from) setSwitch(button);
  });
  document.addEventListener("keydown", (event) => { // arrows go from step to step
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const button = event.target.closest?.("[data-step]");
    if (!way || !button) return;
    const buttons = all("[data-step]", button.parentElement);
    const next = buttons[buttons.indexOf(button) + way];
    if (next) { next.focus(); choose(next.dataset.step, false); event.preventDefault(); }
  });
  document.getElementById("run")?.addEventListener("change", (event) => showRun(event.target.value));

  window.addEventListener("resize", () => {
    all("figure[data-columns]").filter((one) => shown(one) && Number(one.dataset.columns) !== columnsOf(one)).forEach(draw);
  });

  // A page that is made again and again asks for the number of the newest one.
  function watch() {
    const version = root.dataset.version;
    if (version === undefined || !location.protocol.startsWith("http")) return;
    setInterval(async () => {
      const answer = await fetch("version").catch(() => null);
      if (answer?.ok && (await answer.text()) !== version) location.reload();
    }, 2000);
  }

  async function begin() {
    setTheme(remembered("theme") ?? "auto");
    for (const [name, attribute] of [["x_axis", "axis"], ["from_share", "from"]]) {
      const button = document.querySelector(`button[data-${attribute}="${CSS.escape(remembered(name) ?? "")}"]`);
      if (button) setSwitch(button);
    }
    const [run, step] = [remembered("run"), remembered("step") ?? ""];
    const first = document.getElementById("run")?.value ?? "0";
    const known = document.querySelector(`.of-run[data-run="${CSS.escape(run ?? "")}"]`);
    if (known && step.startsWith(`${run}-`)) choose(step, false);
    showRun(known ? run : first);
    await drawShown();
    tellAll();
    root.dataset.drawn = "true";
    watch();
  }
  begin();
})();
