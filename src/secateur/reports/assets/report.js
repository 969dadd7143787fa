(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("js");

  // Theme: what the system prefers until the button is used; the choice is kept where it can be.
  var KEY = "secateur-theme";
  var button = document.getElementById("theme");
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  function remembered() {
    try { return window.localStorage.getItem(KEY); } catch (refused) { return null; }
  }
  function isDark() {
    var chosen = root.getAttribute("data-theme");
    return chosen ? chosen === "dark" : system.matches;
  }
  function show() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(isDark()));
    button.setAttribute("aria-label", "Switch to the " + (isDark() ? "light" : "dark") + " theme");
  }
  var asked = /[?&#]theme=(dark|light)/.exec(window.location.search + window.location.hash);
  var first = asked ? asked[1] : remembered();
  if (first === "dark" || first === "light") { root.setAttribute("data-theme", first); }
  button.addEventListener("click", function () {
    var next = isDark() ? "light" : "dark";
    root.setAttribute("data-theme", next);
    try { window.localStorage.setItem(KEY, next); } catch (refused) { /* private window */ }
    show();
  });
  system.addEventListener("change", show);
  show();

  // A bar that is pointed at or tapped is told below the chart.
  document.querySelectorAll("figure.widths").forEach(function (figure) {
    var readout = figure.querySelector(".readout");
    var lit = null;
    figure.querySelectorAll("g.bar").forEach(function (bar) {
      var title = bar.querySelector("title");
      var text = title.textContent;
      title.remove();
      function tell() {
        if (lit) { lit.classList.remove("lit"); }
        lit = bar;
        bar.classList.add("lit");
        readout.textContent = text;
      }
      bar.addEventListener("pointerenter", tell);
      bar.addEventListener("click", tell);
    });
  });

  function press(id, action) {
    var element = document.getElementById(id);
    if (element) { element.addEventListener("click", function () { action(element); }); }
  }
  press("copy", function (element) {
    var command = document.getElementById("command");
    function done(word) {
      element.textContent = word;
      window.setTimeout(function () { element.textContent = "Copy"; }, 1600);
    }
    function select() {
      window.getSelection().selectAllChildren(command);
      done("Selected");
    }
    if (navigator.clipboard) {
      navigator.clipboard.writeText(command.textContent).then(function () { done("Copied"); }, select);
    } else { select(); }
  });
  press("save", function () {
    var text = document.getElementById("secateur-metrics").textContent;
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "metrics.json";
    link.click();
    window.setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  });

  // Paper cannot be clicked: everything that is folded is opened for printing.
  var folded = [];
  window.addEventListener("beforeprint", function () {
    folded = Array.prototype.slice.call(document.querySelectorAll("details:not([open])"));
    folded.forEach(function (box) { box.open = true; });
  });
  window.addEventListener("afterprint", function () {
    folded.forEach(function (box) { box.open = false; });
  });
})();
