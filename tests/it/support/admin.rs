//! The admin listener of a gateway under test, as a probe and Prometheus see it.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where it listens.
#[derive(Clone, Copy)]
pub struct Admin(pub SocketAddr);

impl Admin {
    /// Status and body of a GET.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Every sample of `/metrics`: `name{labels}` → value.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let (_, body) = self.get("/metrics").await;
        body.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// The sum of all samples of this name that have all of these labels (`why="idle"`).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.metrics()
            .await
            .iter()
            .filter(|(sample, _)| {
                sample.split('{').next() == Some(name)
                    && labels.iter().all(|label| sample.contains(label))
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// Waits until the metric has the value.
    pub async fn metric_becomes(&self, name: &str, labels: &[&str], value: f64) {
        let wait = super::eventually(async || self.metric(name, labels).await == value).await;
        if !wait {
            let (_, all) = self.get("/metrics").await;
            panic!("{name}{labels:?} did not become {value}:\n{all}");
        }
    }

    /// One end was recorded, for this reason.
    pub async fn outcome(&self, who: &str, phase: &str, why: &str) {
        let labels = [
            format!("who=\"{who}\""),
            format!("phase=\"{phase}\""),
            format!("why=\"{why}\""),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        self.metric_becomes("tidegate_outcomes_total", &labels, 1.0)
            .await;
    }
}
