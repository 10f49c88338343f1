"""The page's appearance, light and dark, from a phone's width up."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr

from csrnet_hub.images import SUFFIXES

THEME = gr.themes.Soft(  # uses the visitor's system fonts, so none is fetched
    primary_hue="blue",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(  # unobtrusive labels, since they lie over the pictures
    background_fill_primary="*neutral_50",  # Soft's value, which set() would reset
    block_label_background_fill="white",
    block_label_background_fill_dark="*background_fill_primary",
    block_info_text_color="*neutral_600",  # Soft's greys are too pale to read
    block_info_text_color_dark="*neutral_300",
    body_text_color_subdued="*neutral_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_hover_dark="*primary_700",
    button_secondary_background_fill_hover_dark="*neutral_600",  # Soft's is too pale for white text
    link_text_color_dark="*secondary_300",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
    input_border_color="*neutral_300",
    input_border_color_dark="*neutral_600",
    block_label_text_color="*body_text_color",
    block_label_text_color_dark="*body_text_color",
    block_label_text_weight="500",
    block_title_background_fill="none",
    block_title_background_fill_dark="none",
    block_title_text_color="*body_text_color",
    block_title_text_color_dark="*body_text_color",
    block_title_text_weight="500",
    block_title_padding="0",
    block_title_radius="0",
)
CSS = """
.gradio-container { width: 100% !important; max-width: 1240px !important;
  margin: 0 auto !important; }
.gradio-container .main, .gradio-container main, .gradio-container .tabs { min-width: 0;
  max-width: 100%; }
.tab-wrapper { max-width: calc(100vw - 2rem); }
.tab-wrapper .visually-hidden { max-width: 100%; overflow: hidden; }
.tab-wrapper button.selected { color: var(--primary-700); }
.dark .tab-wrapper button.selected { color: var(--primary-300); }
input[type="range"]:focus-visible, input[type="checkbox"]:focus-visible {
  outline: 3px solid var(--color-accent) !important; outline-offset: 3px; }
.html-container { padding-inline: 0 !important; }
button[aria-busy="true"] { cursor: progress; opacity: .6; }
.prose h1 { margin-bottom: .2rem; }
.block.result { padding: 1.1rem 1.3rem !important; min-height: 9rem;
  background: var(--block-background-fill); border-radius: var(--block-radius);
  box-shadow: var(--block-shadow); }
#number.block { min-height: 12rem; }
.result .pending { opacity: 1 !important; } /* the progress stands below what is there */
.result [data-testid="status-tracker"] { top: auto !important; bottom: 0; height: 6.8rem;
  background: none !important; justify-content: end; padding-bottom: .6rem !important; }
.result .progress-text { position: static !important; transform: none !important; order: 2; }
.block.result:has([data-testid="status-tracker"]:not(.hide) .progress-text) {
  padding-bottom: 6.8rem !important; }
.result .progress-level-inner { padding-inline: 1.3rem; text-align: center; }
/* Its seconds are those since the last photo or frame. */
:is(#batch-summary, #clip-summary) .progress-text { display: none !important; }
.result [data-testid="status-tracker"] * { font-family: var(--font) !important; }
.count { overflow-wrap: anywhere; }
.count p, .details p { margin: 0; }
.count .people { font-size: clamp(1.2rem, 4vw, 1.6rem); font-weight: 600; line-height: 1.15; }
.count .people b { font-size: 2.4em; font-weight: 700; letter-spacing: -.02em; }
.count .range { font-size: var(--text-xl); }
.count .message { font-size: var(--text-lg); }
.count .problem { color: var(--error-text-color); font-weight: 600;
  border-left: .3rem solid #dc2626; padding-left: .8rem; }
.holds, .exact, .facts, .waiting, .canvas-hint { color: var(--body-text-color); opacity: .78; }
.details .facts { margin-top: .8rem; overflow-wrap: anywhere; }
.notice { border-left: .3rem solid #d97706; padding: .4rem .8rem; margin: .8rem 0 0 !important;
  background: var(--background-fill-secondary); color: var(--body-text-color); }
/* Pictures of one photo have one size, whatever its shape; label and buttons stand above them. */
.picture { padding-top: 2.4rem !important; }
.picture .block-label { background: none; border: none; box-shadow: none; }
.picture .icon-button-wrapper { top: -2.1rem !important; }
.picture:not(.fullscreen) .image-frame { width: 100%; }
.picture:not(.fullscreen) img { width: 100% !important; max-height: 480px; object-fit: contain; }
.scale { display: grid; grid-template-columns: minmax(0, 1fr) auto minmax(0, 1fr);
  gap: .1rem .3rem; margin: .2rem 0 .4rem; font-variant-numeric: tabular-nums; }
.scale i { grid-column: 1 / -1; height: .7rem; border-radius: .35rem; }
.scale span:last-child { text-align: right; }
.scale .jet { background: linear-gradient(to right, #000080, #0000ff 11%, #00ffff 36%,
  #80ff80 50%, #ffff00 64%, #ff0000 89%, #800000); }
.scale .signed { background: linear-gradient(to right, #053061, #4393c3 25%, #f7f7f7 50%,
  #d6604d 75%, #67001f); }
.sheet { overflow-x: auto; }
.sheet table, .card table { border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
.sheet caption { text-align: left; padding-bottom: .3rem; opacity: .78; }
.sheet td, .sheet th, .card td, .card th { padding: .35rem .5rem; text-align: right;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color); }
.sheet th, .card th { font-weight: 600; background: var(--background-fill-secondary); }
.card { margin-bottom: 1.5rem; overflow-x: auto; max-width: 46rem; }
.card p { margin: .5rem 0; }
.model-card pre { margin: .5rem 0; overflow-x: auto; }
.icon-button, .icon-mode, .label-clear-button { min-width: 24px; min-height: 24px; }
#batch-table * { font-family: var(--font) !important; font-variant-numeric: tabular-nums; }
/* The enlarged picture fills the window: the gallery may be many windows high. */
#batch-gallery .preview { position: fixed; inset: 0; z-index: 100;
  background: var(--background-fill-primary); }
#batch-gallery .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(min(200px, 40%), 1fr)); }
footer > .divider:first-child, footer > .divider:last-of-type:not(:has(~ a, ~ button)) {
  display: none; }
.canvas canvas { display: block; cursor: crosshair;
  background: var(--background-fill-secondary); }
.canvas canvas:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 1px; }
.canvas-tools { display: flex; flex-wrap: wrap; gap: .4rem; margin-bottom: .5rem; }
.canvas-tools button { margin: 0; padding: .4rem .8rem; border-radius: .4rem; min-height: 2.4rem;
  color: var(--button-secondary-text-color); background: var(--button-secondary-background-fill);
  border: 1px solid var(--border-color-primary); cursor: pointer; }
.canvas-tools button:hover { background: var(--button-secondary-background-fill-hover); }
.canvas-tools button[aria-pressed="true"] { background: var(--button-primary-background-fill);
  color: var(--button-primary-text-color); }
.canvas-tools button[hidden], .canvas[hidden] { display: none; }
.unsaved #heads-files { display: none !important; }
.canvas-hint { margin: .4rem 0 0; }
@media (max-width: 640px) {
  .photo { height: 260px !important; }
  .card td, .card th { padding-inline: .3rem; font-size: var(--text-sm); }
  .tab-wrapper button { padding-inline: .6rem; }
  :is(#batch-photos, #earlier, #annotation) td.download { display: none; } /* one has them */
}
"""
# In CSS passed to it, Gradio restricts media queries to the content of the tabs.
HEAD = """<style>
@media (prefers-reduced-motion: reduce) {
  .gradio-container * { animation-duration: .01ms !important; scroll-behavior: auto !important;
    animation-iteration-count: 1 !important; transition-duration: .01ms !important; }
}
@media (forced-colors: active) {
  .canvas-tools button[aria-pressed="true"] { outline: 2px solid; outline-offset: -4px; }
  .scale i, .gradio-container input[type="range"] { forced-color-adjust: none; }
  .tab-wrapper button[aria-selected="true"] { border-bottom: 3px solid Highlight; }
  .gradio-container button:is(.lg, .sm) { border: 1px solid; }
}
body:not(.dark) .cm-line span { color: inherit !important; }
/* On paper: what was found without what it was asked with, black on white from a dark page too. */
@media print {
  body, .gradio-container { background: #fff !important; }
  .gradio-container * { color: #000 !important; box-shadow: none !important;
    background-color: transparent !important; }
  .scale i { print-color-adjust: exact; }
  .gradio-container #batch-table th, #batch-gallery .caption-label { background: #fff !important; }
  #batch-table::after { content: "Only the first rows and columns: the CSV has them all."; }
  footer, .tab-wrapper, #drawn, .canvas-tools, .canvas-hint, #parts:has(.waiting),
  .gradio-container .form, .gradio-container input, .gradio-container button:not(:has(img)),
  .gradio-container .icon-button-wrapper { display: none !important; }
  .gradio-container img, .gradio-container canvas, .sheet { break-inside: avoid; }
}
</style>"""
PAGE = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
HEAD += f"<script>{PAGE.replace('SUFFIXES', '|'.join(map(re.escape, sorted(SUFFIXES))))}</script>"
