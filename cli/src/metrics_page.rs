//! Single figures from a page of metrics in the Prometheus text format.

/// The sum of a metric over all its label sets, 0 or more; `None` if the page has none.
///
/// A value that is not a number of 0 or more does not count.
pub(crate) fn sum_of(page: &str, name: &str) -> Option<f64> {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            // Label values may hold any character but a line feed, so the labels end at the last brace.
            let rest = match rest.strip_prefix('{') {
                Some(labels) => labels.rsplit_once('}')?.1,
                None => rest.starts_with(' ').then_some(rest)?,
            };
            let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
            (value >= 0.0).then_some(value)
        })
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(page: &str, wanted: Option<f64>) {
        assert_eq!(sum_of(page, "slots"), wanted, "{page:?}");
    }

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        check("# TYPE slots gauge\nslots 1.5\nslots_busy 9\n", Some(1.5));
        check(
            "slots{model=\"a} 7\"} 1\nslots{model=\"b\",x=\"{\"} 2 1700000000\n",
            Some(3.0),
        );
        check("slots{a=\"b\"} 0\n# EOF\n", Some(0.0));
        check("slotsx 1\nxslots 2\n", None);
        check("", None);
    }

    #[test]
    fn a_wrong_figure_counts_nothing() {
        check(
            "slots NaN\nslots -3\nslots abc\nslots\nslots{a=\"b\" 4\n",
            None,
        );
        check("slots NaN\nslots 2\n", Some(2.0));
        check("slots +Inf\n", Some(f64::INFINITY));
    }
}
