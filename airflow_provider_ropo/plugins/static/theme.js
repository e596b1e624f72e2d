// Light or dark, as Airflow's UI around this page is. A plain script, so that it runs before the page is painted.
"use strict";

(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");

  /** The root element of the page around this one; null if there is none, or if it is not Airflow's. */
  function parentRoot() {
    try {
      return window.parent === window ? null : window.parent.document.documentElement;
    } catch {
      return null;
    }
  }

  function currentTheme() {
    const root = parentRoot();
    for (const theme of ["dark", "light"]) {
      if (root?.classList.contains(theme)) {
        return theme;
      }
    }
    const stored = localStorage.getItem("theme");
    return stored === "dark" || stored === "light" ? stored : dark.matches ? "dark" : "light";
  }

  function applyTheme() {
    document.documentElement.dataset.theme = currentTheme();
  }

  applyTheme();
  dark.addEventListener("change", applyTheme);
  window.addEventListener("storage", applyTheme);
  const root = parentRoot();
  if (root) {
    new MutationObserver(applyTheme).observe(root, { attributes: true, attributeFilter: ["class"] });
  }
})();
