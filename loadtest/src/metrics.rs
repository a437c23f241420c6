//! Reads a server's metrics: the text format of Prometheus, as far as sums over series need it.

use anyhow::Context;

use crate::http_client::HttpClient;

/// All series of one scrape.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    /// Scrapes `http://host:port/metrics`.
    ///
    /// # Errors
    /// When the server does not answer with text.
    pub async fn scrape(address: &str) -> anyhow::Result<Self> {
        let mut client = HttpClient::new(&format!("http://{address}"))?;
        let body = client.get("/metrics").await.context("/metrics")?;
        Ok(Self(String::from_utf8(body.to_vec()).context("/metrics")?))
    }

    /// The sum over all series of a name that carry each of these labels, written `name="value"`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, with) = series.split_once('{').unwrap_or((series, "}"));
            let pairs: Vec<&str> = with.trim_end_matches('}').split(',').collect();
            let all = labels.iter().all(|label| pairs.contains(label));
            if found == name && all { value.parse::<f64>().ok() } else { None }
        });
        values.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_add_up_by_name_and_label() {
        let text = "# HELP calls Calls.\n# TYPE calls counter\n\
            calls{model=\"a\",outcome=\"answered\"} 3\ncalls{model=\"b\",outcome=\"answered\"} 4\n\
            calls{model=\"a\",outcome=\"overloaded\"} 5\n\
            calls_more{model=\"a\"} 100\nmemory 1.5e3\n";
        let metrics = Metrics(text.to_owned());
        assert!((metrics.sum("calls", &[]) - 12.0).abs() < 1e-9);
        assert!(
            (metrics.sum("calls", &["model=\"a\"", "outcome=\"answered\""]) - 3.0).abs() < 1e-9
        );
        assert!((metrics.sum("memory", &[]) - 1500.0).abs() < 1e-9);
        assert!(metrics.sum("nothing", &[]).abs() < 1e-9);
    }
}
