"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { timeline, rates, stages, seconds } = data;
  const whole = Math.max(seconds, 1e-6);
  const find = (id) => document.getElementById(id);
  const ENDINGS = ["done", "failed", "to be tried again", "cancelled"];
  const SHARES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
  const shareOf = new Map([...SHARES].map((letter, index) => [letter, index / 63]));
  const TITLE = 18, ROW = 12, AXIS = 22, FONT = "12px system-ui, 'DejaVu Sans', sans-serif";
  const view = { from: 0, to: whole };

  // The sample: one entry for each try.
  const spans = timeline.spans, count = spans.at.length;
  const begin = new Float64Array(count), end = new Float64Array(count);
  let ticks = 0, longest = 0;
  for (let index = 0; index < count; index += 1) {
    ticks += spans.at[index];
    begin[index] = ticks * whole / 1048576;
    end[index] = begin[index] + spans.for[index] * whole / 1048576;
    longest = Math.max(longest, end[index] - begin[index]);
  }
  const stageOf = (index) => spans.who[index] % stages.length;
  const workerOf = (index) => Math.floor(spans.who[index] / stages.length);
  const hasAll = count === timeline.seen;

  // Where each row is drawn, and the title above the first one of each stage.
  const tops = [], titles = [], rowsOf = stages.map(() => []);
  let height = 0;
  timeline.rows.forEach(([stage, first], index) => {
    if (!rowsOf[stage].length) {
      titles.push({ stage, top: height });
      height += TITLE;
    }
    rowsOf[stage].push(index);
    tops.push(height);
    height += ROW;
  });
  const rowOf = (stage, worker) => rowsOf[stage][Math.floor(worker / timeline.perRow[stage])];

  let colours = {};
  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    colours = { text: read("text"), soft: read("soft"), line: read("line"), track: read("track"),
      card: read("card"), endings: [null, read("bad"), read("again"), read("off")] };
    colours.stage = stages.map((_, index) => read(`c${index % data.colours}`));
  };

  const secondsText = (value) => {
    if (value < 0.9995) return `${Number((value * 1000).toPrecision(3))} ms`;
    if (value < 99.95) return `${Number(value.toPrecision(3))} s`;
    const rounded = Math.round(value), minutes = Math.floor(rounded / 60);
    return minutes < 60 ? `${minutes} min ${rounded % 60} s`
      : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };

  // A moment, as exactly as the axis shows it when zoomed in.
  const exactText = (value) =>
    value < 0.9995 ? secondsText(value) : `${Number(value.toPrecision(6))} s`;

  // 1, 2 or 5 times a power of ten; for times also minutes and hours.
  const stepFor = (span, most, isTime) => {
    const least = span / most;
    if (isTime && least > 5) {
      const steps = [10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];
      return steps.find((step) => step >= least) || Math.ceil(least / 86400) * 86400;
    }
    const power = 10 ** Math.floor(Math.log10(least));
    return [1, 2, 5, 10].find((step) => step * power >= least * 0.999) * power;
  };
  const momentText = (at, step) => {
    if (step >= 10 && view.to > 99) {
      const hours = Math.floor(at / 3600), rest = Math.round(at % 3600);
      const minutes = Math.floor(rest / 60), pad = (value) => String(value).padStart(2, "0");
      return hours ? `${hours}:${pad(minutes)}:${pad(rest % 60)}` : `${minutes}:${pad(rest % 60)}`;
    }
    if (view.to < 1) return `${Number((at * 1000).toPrecision(6))} ms`;
    return `${Number(at.toFixed(Math.max(0, Math.ceil(-Math.log10(step)))))} s`;
  };

  const prepared = (canvas, tall) => {
    const wide = canvas.clientWidth, dense = window.devicePixelRatio || 1;
    canvas.style.height = `${tall}px`;
    canvas.width = Math.round(wide * dense);
    canvas.height = Math.round(tall * dense);
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    pen.font = FONT;
    pen.textBaseline = "middle";
    return [pen, wide];
  };

  const drawAxis = (pen, left, wide, top, tall) => {
    const step = stepFor(view.to - view.from, Math.max(2, wide / 110), true);
    const scale = wide / (view.to - view.from);
    pen.fillStyle = colours.soft;
    for (let at = Math.ceil(view.from / step - 1e-9) * step; at <= view.to * 1.0001; at += step) {
      const x = left + (at - view.from) * scale;
      const text = momentText(Math.max(at, 0), step), half = pen.measureText(text).width / 2;
      if (x + half > left + wide + 4) break;
      pen.textAlign = "center";
      pen.fillText(text, Math.max(x, left + half), top + tall + AXIS / 2 + 2);
      pen.globalAlpha = 0.6;
      pen.fillRect(x, top + tall, 1, 4);
      pen.globalAlpha = 1;
    }
  };

  // -- the timeline

  const rowsCanvas = find("rows"), hint = find("hint"), usual = hint.textContent;
  let selection = null;
  const scaleOf = (wide) => wide / (view.to - view.from);

  const drawRows = () => {
    const [pen, wide] = prepared(rowsCanvas, height + AXIS);
    const scale = scaleOf(wide), binWide = timeline.width * scale;
    const isClose = hasAll || binWide > 12;
    for (const { stage, top } of titles) {
      const workers = timeline.rows.filter((row) => row[0] === stage)
        .reduce((sum, row) => sum + row[2], 0);
      const each = timeline.perRow[stage] > 1 ? `, ${timeline.perRow[stage]} in a row` : "";
      const about = ` ${workers} worker${workers === 1 ? "" : "s"}${each}`;
      pen.textAlign = "left";
      pen.fillStyle = colours.text;
      const most = wide - pen.measureText(about).width - 4;
      let name = stages[stage];
      while (name.length > 1 && pen.measureText(name).width > most) name = `${name.slice(0, -2)}…`;
      pen.fillText(name, 0, top + TITLE / 2);
      pen.fillStyle = colours.soft;
      pen.fillText(about, pen.measureText(name).width + 4, top + TITLE / 2);
    }
    timeline.rows.forEach(([stage, , , shares], row) => {
      pen.globalAlpha = 1;
      pen.fillStyle = colours.track;
      pen.fillRect(0, tops[row], wide, ROW - 2);
      if (hasAll && timeline.perRow[stage] === 1) return;
      pen.fillStyle = colours.stage[stage];
      const first = Math.max(Math.floor(view.from / timeline.width), 0);
      const last = Math.min(Math.ceil(view.to / timeline.width), shares.length);
      for (let bin = first; bin < last; bin += 1) {
        const share = shareOf.get(shares[bin]);
        if (!share) continue;
        pen.globalAlpha = share * (isClose && !hasAll ? 0.35 : 0.9);
        const left = Math.max((bin * timeline.width - view.from) * scale, 0);
        const right = ((bin + 1) * timeline.width - view.from) * scale;
        pen.fillRect(left, tops[row], right - left, ROW - 2);
      }
    });
    const drawSpan = (index) => {
      const row = rowOf(stageOf(index), workerOf(index)), how = spans.how[index];
      const left = (begin[index] - view.from) * scale;
      const exact = (end[index] - begin[index]) * scale;
      if (left > wide || left + exact < -1) return;
      pen.fillStyle = how ? colours.endings[how] : colours.stage[stageOf(index)];
      const least = how === 1 ? 1.6 : how ? 1.2 : 0.4;
      // A gap, so that two that follow each other are seen as two.
      pen.fillRect(left, tops[row], Math.max(exact > 4 ? exact - 1 : exact, least), ROW - 2);
    };
    for (const wanted of [0, 3, 2, 1]) {
      for (let index = 0; index < count; index += 1) {
        const how = spans.how[index];
        if (how !== wanted || (!how && (!isClose || (hasAll && timeline.perRow[stageOf(index)] > 1)))) continue;
        pen.globalAlpha = how ? 1 : 0.9;
        drawSpan(index);
      }
    }
    pen.globalAlpha = 1;
    drawAxis(pen, 0, wide, 0, height);
    if (selection) {
      pen.globalAlpha = 0.25;
      pen.fillStyle = colours.text;
      pen.fillRect(Math.min(selection.from, selection.to), 0,
        Math.abs(selection.to - selection.from), height);
      pen.globalAlpha = 1;
    }
  };

  const spanAt = (x, y, wide) => {
    const row = tops.findIndex((top) => y >= top && y < top + ROW);
    if (row < 0) return -1;
    const scale = scaleOf(wide), at = view.from + x / scale, near = 2 / scale;
    let best = -1, bestSize = Infinity;
    for (let index = 0; index < count && begin[index] <= at + near; index += 1) {
      if (end[index] < at - near || rowOf(stageOf(index), workerOf(index)) !== row) continue;
      const size = (end[index] - begin[index]) * (spans.how[index] ? 0.1 : 1);
      if (size < bestSize) { best = index; bestSize = size; }
    }
    return best;
  };

  const tell = (x, y) => {
    const index = spanAt(x, y, rowsCanvas.clientWidth);
    if (index < 0) { hint.textContent = usual; return; }
    const name = `${stages[stageOf(index)]}-W${workerOf(index)}`;
    hint.textContent = `${name}, item ${spans.item[index]}: ${ENDINGS[spans.how[index]]} after `
      + `${secondsText(end[index] - begin[index])}, at ${exactText(begin[index])}`;
  };

  // -- the rates

  const ratesCanvas = find("rates"), at = find("at"), usualRates = at.textContent;
  const LEFT = 52, TALL = 170, TOP = 8;
  let lines = [], linesWidth = 1;

  const readRates = () => {
    const from = Math.floor(view.from / rates.width);
    const to = Math.min(Math.ceil(view.to / rates.width), Math.ceil(whole / rates.width));
    // So few points that each stands for a few items.
    const most = Math.max(...rates.counts.map((counts) =>
      counts.slice(from, to).reduce((sum, number) => sum + number, 0)));
    const wanted = Math.min(120, Math.max(12, most / 4));
    const joined = Math.max(1, Math.ceil((to - from) / wanted));
    linesWidth = joined * rates.width;
    const first = Math.floor(from / joined);
    lines = rates.counts.map((counts) => {
      const points = [];
      for (let group = first; group * joined < to; group += 1) {
        let sum = 0;
        for (let bin = group * joined; bin < (group + 1) * joined; bin += 1) sum += counts[bin] || 0;
        const left = group * linesWidth, right = Math.min(left + linesWidth, whole);
        if (right - left < linesWidth / 2 && points.length) continue; // too short for a rate
        points.push([(left + right) / 2, sum / Math.max(right - left, 1e-9)]);
      }
      return points;
    });
  };

  const drawRates = (pointed) => {
    readRates();
    const [pen, all] = prepared(ratesCanvas, TOP + TALL + AXIS), wide = all - LEFT;
    const most = Math.max(0, ...lines.flat().map((point) => point[1])) || 1;
    const step = stepFor(most, 4, false), top = Math.ceil(most / step - 1e-9) * step;
    pen.textAlign = "right";
    for (let value = 0; value <= top * 1.001; value += step) {
      const y = TOP + TALL - value / top * TALL;
      pen.fillStyle = colours.line;
      pen.fillRect(LEFT, y, wide, 1);
      pen.fillStyle = colours.soft;
      pen.fillText(Number(value.toPrecision(6)).toLocaleString("en"), LEFT - 6, y);
    }
    drawAxis(pen, LEFT, wide, TOP, TALL);
    const scale = wide / (view.to - view.from);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, wide, TOP + TALL + 2);
    pen.clip();
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    lines.forEach((points, index) => {
      const isFailed = index === stages.length;
      if (isFailed && !points.some((point) => point[1])) return;
      pen.strokeStyle = isFailed ? colours.endings[1] : colours.stage[index];
      pen.setLineDash(isFailed ? [4, 3] : []);
      pen.beginPath();
      points.forEach(([moment, value], place) => {
        const x = LEFT + (moment - view.from) * scale, y = TOP + TALL - value / top * TALL;
        if (place) pen.lineTo(x, y); else pen.moveTo(x, y);
        if (points.length === 1) pen.lineTo(x + 1, y);
      });
      pen.stroke();
    });
    pen.restore();
    if (pointed !== undefined) {
      pen.fillStyle = colours.soft;
      pen.fillRect(LEFT + (pointed - view.from) * scale, TOP, 1, TALL);
    }
  };

  ratesCanvas.addEventListener("pointermove", (event) => {
    const wide = ratesCanvas.clientWidth - LEFT;
    const moment = view.from + (event.offsetX - LEFT) / wide * (view.to - view.from);
    if (event.offsetX < LEFT || !lines.length || !lines[0].length) return;
    drawRates(moment);
    const nearest = (points) => points.reduce((best, point) =>
      Math.abs(point[0] - moment) < Math.abs(best[0] - moment) ? point : best);
    const texts = lines.map((points, index) =>
      `${index < stages.length ? stages[index] : "failed"} ${Number(nearest(points)[1].toPrecision(3))}/s`);
    at.textContent = `at ${exactText(moment)}: ${texts.join(", ")}`;
  });
  ratesCanvas.addEventListener("pointerleave", () => {
    at.textContent = usualRates;
    drawRates();
  });

  // -- zoom

  let planned = 0;
  const draw = () => {
    if (!planned) planned = requestAnimationFrame(() => { planned = 0; drawRows(); drawRates(); });
  };
  const show = (from, to) => {
    const span = Math.min(Math.max(to - from, whole / 100000), whole);
    view.from = Math.min(Math.max(from, 0), whole - span);
    view.to = view.from + span;
    draw();
  };
  const zoom = (factor, center = (view.from + view.to) / 2) =>
    show(center - (center - view.from) * factor, center + (view.to - center) * factor);
  const pan = (share) => {
    const by = (view.to - view.from) * share;
    show(view.from + by, view.to + by);
  };
  const moves = { in: () => zoom(0.5), out: () => zoom(2), left: () => pan(-0.5),
    right: () => pan(0.5), all: () => show(0, whole) };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", moves[button.dataset.zoom]);
  }
  rowsCanvas.addEventListener("keydown", (event) => {
    const move = { "+": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", "0": "all",
      Escape: "all" }[event.key];
    if (move && !event.ctrlKey && !event.metaKey) { moves[move](); event.preventDefault(); }
  });
  rowsCanvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return; // the page scrolls
    event.preventDefault();
    const center = view.from + event.offsetX / scaleOf(rowsCanvas.clientWidth);
    if (event.shiftKey) pan(Math.sign(event.deltaX + event.deltaY) * 0.1);
    else zoom(event.deltaY > 0 ? 1.25 : 0.8, center);
  }, { passive: false });
  rowsCanvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.button) return;
    rowsCanvas.setPointerCapture(event.pointerId);
    selection = { from: event.offsetX, to: event.offsetX };
  });
  rowsCanvas.addEventListener("pointermove", (event) => {
    tell(event.offsetX, event.offsetY);
    if (selection) { selection.to = event.offsetX; draw(); }
  });
  rowsCanvas.addEventListener("pointerup", (event) => {
    if (event.pointerType === "touch") tell(event.offsetX, event.offsetY);
    if (!selection) return;
    const [from, to] = [selection.from, selection.to].sort((one, other) => one - other);
    const scale = scaleOf(rowsCanvas.clientWidth), start = view.from;
    selection = null;
    if (to - from > 4) show(start + from / scale, start + to / scale); else draw();
  });
  rowsCanvas.addEventListener("pointercancel", () => { selection = null; draw(); });
  rowsCanvas.addEventListener("pointerleave", () => { if (!selection) hint.textContent = usual; });
  rowsCanvas.addEventListener("dblclick", moves.all);

  // -- the list of failed items

  const button = find("download");
  if (button) {
    button.addEventListener("click", () => {
      const list = new Blob([`${data.failed.join("\n")}\n`], { type: "text/plain" });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(list);
      link.download = `failed-${data.run.replace(/[^0-9A-Za-z-]/g, "").slice(0, 40) || "ids"}.txt`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    draw();
  });
  new ResizeObserver(draw).observe(document.querySelector("main"));
  readColours();
  drawRows();
  drawRates();
})();
