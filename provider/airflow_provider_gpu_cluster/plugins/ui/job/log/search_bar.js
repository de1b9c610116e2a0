// The search through a log.

import { Chakra, html, React } from "../../airflow.js";
import { countText } from "./search_state.js";

const TYPING_MS = 300;

/** @param {{field: object, query: {q: string, isRegex: boolean, ignoreCase: boolean}, search: object, onQuery: (query: object) => void, onGo: (way: "after" | "before") => void}} props */
export function SearchBar({ field, query, search, onQuery, onGo }) {
  const [text, setText] = React.useState(query.q);
  const isTyping = text !== query.q;
  React.useEffect(() => {
    if (!isTyping) return undefined;
    const timer = setTimeout(() => onQuery({ ...query, q: text }), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text, isTyping]);

  // What was typed a moment ago has to be the query first.
  const then = React.useRef(null);
  React.useEffect(() => {
    if (then.current && query.q) onGo(then.current);
    then.current = null;
  }, [query]);

  function onKeyDown(event) {
    if (event.key === "Enter" && text) {
      event.preventDefault();
      const way = event.shiftKey ? "before" : "after";
      if (!isTyping) onGo(way);
      else {
        then.current = way;
        onQuery({ ...query, q: text });
      }
    } else if (event.key === "Escape") {
      setText("");
      onQuery({ ...query, q: "" });
    }
  }
  const { found, current, error, isAsking } = search;
  const isOn = Boolean(query.q);
  return html`<${Chakra.Flex} role="search" aria-label="Log" align="center" gap=${2} mb=${2} wrap="wrap">
    <${Chakra.Input} ref=${field} type="search" size="sm" flex="1" minW="10rem" maxW="24rem" maxLength=${1000} aria-label="Search the log" placeholder="Search the log"
      value=${text} onChange=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown} />
    <${Toggle} label="Match case" isOn=${!query.ignoreCase} onToggle=${() => onQuery({ ...query, ignoreCase: !query.ignoreCase })}>Aa<//>
    <${Toggle} label="Regular expression" isOn=${query.isRegex} onToggle=${() => onQuery({ ...query, isRegex: !query.isRegex })}>.*<//>
    <${Chakra.Button} size="sm" variant="outline" disabled=${!isOn} aria-label="Previous line that was found" title="Previous (Shift+Enter)" onClick=${() => onGo("before")}>\u2191<//>
    <${Chakra.Button} size="sm" variant="outline" disabled=${!isOn} aria-label="Next line that was found" title="Next (Enter)" onClick=${() => onGo("after")}>\u2193<//>
    <${Chakra.Text} role="status" color=${error ? "fg.error" : "fg.muted"} fontSize="sm" minW="5rem" overflowWrap="anywhere">
      ${isOn && (error || (found ? countText(found, current) : isAsking ? "searching" : ""))}
    <//>
  <//>`;
}

const Toggle = ({ label, isOn, onToggle, children }) => html`<${Chakra.Button} size="sm" variant=${isOn ? "solid" : "outline"} colorPalette=${isOn ? "brand" : "gray"}
    aria-label=${label} aria-pressed=${isOn} title=${label} px=${2} fontFamily="mono" onClick=${onToggle}>${children}<//>`;
