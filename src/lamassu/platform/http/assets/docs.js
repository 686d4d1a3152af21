const box = document.getElementById("filter");
const nothing = document.getElementById("nothing");
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let any = false;
  for (const section of document.querySelectorAll("section")) {
    let shown = false;
    for (const operation of section.querySelectorAll(".operation")) {
      const matches = words.every((word) => operation.dataset.words.includes(word));
      operation.hidden = !matches;
      shown ||= matches;
    }
    section.hidden = !shown;
    any ||= shown;
  }
  nothing.hidden = any;
});
if (location.hash) {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
}
