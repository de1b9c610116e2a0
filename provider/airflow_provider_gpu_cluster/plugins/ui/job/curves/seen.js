// Something that is made only when it comes into view, and keeps its place until then.

import { Chakra, html, React } from "../../airflow.js";

/** @param {{minH: string, make: () => any}} props */
export function WhenSeen({ minH, make }) {
  const place = React.useRef(null);
  const [isSeen, setIsSeen] = React.useState(false);
  React.useEffect(() => {
    if (isSeen) return undefined;
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && setIsSeen(true), { rootMargin: "100px" });
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [isSeen]);
  return html`<${Chakra.Box} ref=${place} minH=${minH} minW=${0}>${isSeen ? make() : null}<//>`;
}
