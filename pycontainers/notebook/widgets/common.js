// What all of our widgets have in common; put in front of each one's own file (base.py).
// Everything that is shown is set as text, never as HTML: names, logs and file names come from containers.

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Questions to the kernel and their answers: `ask(message, then)`; a question that nobody answers costs nothing.
// `close()` when the view goes.
function asking(model) {
  const waiting = new Map(); // number of a question -> what to do with its answer
  const own = Math.random().toString(36).slice(2); // a model may have several views
  let last = 0;
  function answered(message, buffers) {
    if (message.view !== own) return;
    const then = waiting.get(message.question);
    waiting.delete(message.question);
    if (then) then(message, buffers);
  }
  model.on("msg:custom", answered);
  return {
    view: own, // names this view in what is sent: a kernel that speaks unasked may mean one view alone
    ask(message, then) {
      last += 1;
      waiting.set(last, then);
      model.send({ ...message, view: own, question: last });
    },
    close() {
      model.off("msg:custom", answered);
    },
  };
}

// Keys that mean something here must not reach the notebook, which has its own meaning for most of them.
function own(event) {
  event.preventDefault();
  event.stopPropagation();
}

// Stopping an event is enough in JupyterLab, which asks its own keys as the event comes back up. Notebook 7 asks on the way down, before
// anybody here: `x` would cut the cell, an arrow leave it. Its keys pass over an element with this mark (Lumino's CommandRegistry), which
// must be the focused one itself. Ctrl-S and their like go on to mean what they mean there. Once for all of our widgets on a page.
if (!window.pyctKeysStay) {
  window.pyctKeysStay = true;
  window.addEventListener(
    "keydown",
    (event) => {
      if (!(event.target instanceof Element) || !event.target.closest(".pyct")) return;
      const all = event.target.closest(".pyct-all-keys"); // a terminal: Ctrl-S is its program's
      const theirs = event.metaKey || (!all && (event.altKey || (event.ctrlKey && event.key !== "a")));
      event.target.toggleAttribute("data-lm-suppress-shortcuts", !theirs);
    },
    true,
  );
}
