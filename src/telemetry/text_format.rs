//! OpenMetrics as the text that came before it (Prometheus exposition format 0.0.4), for scrapers that know no other, and for
//! browsers, which show it instead of saving it as a file.

/// The same samples: families are called as their samples are, and an info is a gauge.
pub fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its name depends on the type, which comes behind it.
            help = rest.split_once(' ').map_or("", |(_, help)| help);
            continue;
        }
        if let Some((name, kind)) = type_of(line) {
            let (name, kind) = match kind {
                "counter" => (format!("{name}_total"), "counter"),
                "info" => (format!("{name}_info"), "gauge"),
                "unknown" => (name.to_owned(), "untyped"),
                kind => (name.to_owned(), kind),
            };
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn type_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_called_as_their_samples_are() {
        let openmetrics = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# y\"} 3\n\
                           # HELP build The build.\n# TYPE build info\nbuild_info{v=\"1\"} 1\n\
                           # HELP t_seconds Time.\n# TYPE t_seconds gauge\n# UNIT t_seconds seconds\nt_seconds 2\n# EOF\n";
        let wanted = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# y\"} 3\n\
                      # HELP build_info The build.\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n\
                      # HELP t_seconds Time.\n# TYPE t_seconds gauge\nt_seconds 2\n";
        assert_eq!(plain(openmetrics), wanted);
    }
}
