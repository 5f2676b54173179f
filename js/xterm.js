// What the terminal's view takes from xterm.js; bundled by hatch_build.py into one file that is put in front of the view.
export { Terminal } from "@xterm/xterm";
export { FitAddon } from "@xterm/addon-fit";
