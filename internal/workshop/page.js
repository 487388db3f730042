// The page works without this file: it makes it live.
(() => {
  const still = matchMedia('(prefers-reduced-motion: reduce)');
  const byId = id => document.getElementById(id);

  // replace keeps what the learner has focused or opened, and waits while text in the part is selected.
  const waiting = {};
  const selected = part => {
    const selection = getSelection();
    return !selection.isCollapsed && part.contains(selection.anchorNode);
  };
  const replace = (id, html) => {
    const part = byId(id), next = document.createElement('div');
    delete waiting[id];
    next.innerHTML = html;
    if (next.innerHTML === part.innerHTML) return;
    if (selected(part)) {
      waiting[id] = html;
      return;
    }
    const focused = document.activeElement && document.activeElement.id;
    const open = new Set([...part.querySelectorAll('details[open]')].map(d => d.id));
    part.innerHTML = html;
    part.querySelectorAll('details').forEach(d => { if (open.has(d.id)) d.open = true; });
    if (focused && byId(focused) && document.activeElement.id !== focused) byId(focused).focus({preventScroll: true});
  };

  // load fetches what a tab shows.
  const load = async panel => {
    if (!panel.dataset.from || selected(panel)) return;
    try {
      const answer = await fetch(panel.dataset.from), text = await answer.text();
      if (answer.ok) panel.innerHTML = text;
      else panel.textContent = text;
    } catch {
      panel.textContent = 'The workshop does not answer.';
    }
  };

  // refresh reads the shown tab again after a change of the lab, and the report after a check.
  const frame = document.querySelector('iframe');
  const seen = {changes: '', checks: '0'};
  let soon;
  const refresh = () => {
    const now = document.querySelector('#station .eyebrow').dataset;
    if (now.changes !== seen.changes) {
      clearTimeout(soon);
      soon = setTimeout(() => load(document.querySelector('[role=tabpanel]:not([hidden])')), 500);
    }
    if (now.checks !== seen.checks) {
      frame.hidden = false;
      frame.contentWindow.location.replace('/report');
    }
    Object.assign(seen, now);
  };

  document.addEventListener('selectionchange', () => {
    for (const id in waiting) if (!selected(byId(id))) replace(id, waiting[id]);
  });

  // dots puts each request on its map. Without motion it stays at the end of its way for a moment.
  const dots = html => {
    const box = document.createElement('div');
    box.innerHTML = '<svg>' + html + '</svg>';
    for (const dot of [...box.querySelectorAll('g.dot')]) {
      const layer = document.querySelector('svg.' + dot.dataset.map + ' .dots');
      const before = layer && layer.querySelector('[data-id="' + dot.dataset.id + '"]');
      if (before) before.remove(); // its way is corrected
      if (!layer || layer.childElementCount > 60) continue;
      layer.append(dot);
      const seconds = parseFloat(dot.dataset.seconds), move = dot.querySelector('animateMotion');
      if (still.matches) {
        const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
        path.setAttribute('d', move.getAttribute('path'));
        const end = path.getPointAtLength(path.getTotalLength() * .92);
        move.remove();
        dot.setAttribute('transform', 'translate(' + end.x + ' ' + end.y + ')');
      } else {
        move.beginElement();
      }
      setTimeout(() => dot.remove(), seconds * 1000 + 300);
    }
  };

  const connect = () => {
    const events = new EventSource('/events');
    for (const id of ['station', 'charts', 'traffic']) {
      events.addEventListener(id, e => {
        replace(id, e.data);
        refresh();
      });
    }
    events.addEventListener('dots', e => dots(e.data));
    events.onopen = () => byId('lost').hidden = true;
    events.onerror = () => byId('lost').hidden = false;
  };
  connect();

  // A form is sent without leaving the page.
  document.addEventListener('submit', e => {
    e.preventDefault();
    const data = new URLSearchParams(new FormData(e.target));
    if (e.submitter && e.submitter.name) data.set(e.submitter.name, e.submitter.value);
    fetch(e.target.action, {method: 'POST', body: data, redirect: 'manual'}).then(answer => {
      if (answer.type !== 'opaqueredirect') byId('lost').hidden = false;
    }, () => byId('lost').hidden = false);
  });

  // Tabs: arrows move, and what a tab shows is fetched when it is chosen.
  const tabs = [...document.querySelectorAll('[role=tab]')];
  const choose = tab => {
    for (const t of tabs) {
      const on = t === tab;
      t.setAttribute('aria-selected', on);
      t.tabIndex = on ? 0 : -1;
      byId(t.getAttribute('aria-controls')).hidden = !on;
    }
    const panel = byId(tab.getAttribute('aria-controls'));
    if (panel.dataset.from && !panel.textContent) panel.textContent = 'Reading the lab ...';
    load(panel);
  };
  for (const tab of tabs) {
    tab.addEventListener('click', () => choose(tab));
    tab.addEventListener('keydown', e => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[e.key];
      if (!step) return;
      const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
      next.focus();
      choose(next);
    });
  }

  // A browser that may not write to the clipboard selects the text instead.
  document.addEventListener('click', e => {
    const button = e.target.closest('[data-copy]');
    if (!button) return;
    const text = button.parentElement.querySelector('code');
    const told = word => {
      button.textContent = word;
      setTimeout(() => button.textContent = 'Copy', 2000);
    };
    navigator.clipboard.writeText(text.textContent).then(() => told('Copied'), () => {
      getSelection().selectAllChildren(text);
      told('Selected');
    });
  });
})();
