// What the terminal's view takes from xterm.js; bundled by hatch_build.py into one file that is put in front of the view.
export { Terminal } from "@xterm/xterm";
export { FitAddon } from "@xterm/addon-fit";
// The library comes minified. esbuild's own --minify-syntax must stay off: it drops a declaration in requestMode, and then the first
// program that asks for a mode (vim does) stops the terminal.
