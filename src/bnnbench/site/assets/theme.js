// Before the page is drawn: the reader's choice of light or dark, where one was made.
(function () {
  let chosen = null;
  try { chosen = localStorage.getItem("bnnbench-theme"); } catch { /* no storage: the system's */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
