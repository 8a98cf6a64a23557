//! The picture of the table: a bar for each gateway and row, as a part of nginx'. Follows the reader's light or dark theme,
//! and can be read at 800 pixels.

use std::fmt::Write as _;

use crate::gateways::Kind;
use crate::page::figure;
use crate::results::Results;
use crate::rows::{ROWS, Row, Unit};

const WIDTH: f64 = 800.0;
/// Where bars begin, and how long one of nginx' cost is.
const LEFT: f64 = 268.0;
const ONE: f64 = 318.0;
/// A bar that is longer is cut; its figure says what it is.
const LONGEST: f64 = 1.3;
const BAR: f64 = 12.0;
const STEP: f64 = 15.0;
const GAP: f64 = 14.0;
const TOP: f64 = 74.0;

const STYLE: &str = "
    .name { fill: #10242a; font-weight: 600 }
    .text { fill: #3b5258 }
    .nginx { fill: #93a5ab }
    .haproxy { fill: #bccace }
    .ws { fill: #0b6b73 }
    .mqtt { fill: #4a9ba1 }
    .one { stroke: #7d9096; stroke-dasharray: 3 4 }
    @media (prefers-color-scheme: dark) {
      .name { fill: #eaf4f4 }
      .text { fill: #a9bfc4 }
      .nginx { fill: #5d7077 }
      .haproxy { fill: #3f5057 }
      .ws { fill: #5fd4c8 }
      .mqtt { fill: #3a9c95 }
      .one { stroke: #6d838a }
    }
  ";

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Nginx => "nginx",
        Kind::Haproxy => "haproxy",
        Kind::TidegateWs => "ws",
        Kind::TidegateMqtt => "mqtt",
    }
}

fn unit(row: &Row) -> &'static str {
    match row.unit {
        Unit::Session => "KiB",
        Unit::Connection | Unit::RoundTrip | Unit::Delivery | Unit::Request => "µs",
    }
}

pub fn draw(results: &Results) -> Result<String, std::fmt::Error> {
    let rows: Vec<_> = ROWS
        .iter()
        .filter(|row| row.charted && results.figure(row.id, Kind::Nginx).is_some())
        .collect();
    let mut bars = String::new();
    let mut y = TOP;
    let mut told = Vec::new();
    for row in rows {
        let kinds = Kind::ALL
            .into_iter()
            .filter(|kind| results.ratio(row.id, *kind).is_some());
        let kinds: Vec<_> = kinds.collect();
        let middle = y + kinds.len() as f64 * STEP / 2.0;
        writeln!(
            bars,
            r#"  <text class="name" x="{}" y="{:.0}" text-anchor="end" font-size="12">{}</text>"#,
            LEFT - 12.0,
            middle - 1.0,
            row.title
        )?;
        writeln!(
            bars,
            r#"  <text class="text" x="{}" y="{:.0}" text-anchor="end" font-size="11">{}</text>"#,
            LEFT - 12.0,
            middle + 13.0,
            row.unit.name()
        )?;
        for kind in kinds {
            let (Some((ratio, _)), Some(spread)) =
                (results.ratio(row.id, kind), results.figure(row.id, kind))
            else {
                continue;
            };
            let length = ratio.min(LONGEST) * ONE;
            let value = format!("{} {}", figure(spread.least), unit(row));
            writeln!(
                bars,
                r#"  <rect class="{}" x="{LEFT}" y="{y:.1}" width="{length:.1}" height="{BAR}" rx="2"/>"#,
                class(kind)
            )?;
            let label = match kind {
                Kind::Nginx => value.clone(),
                _ => format!("{value} · {ratio:.2}×"),
            };
            writeln!(
                bars,
                r#"  <text class="text" x="{:.1}" y="{:.1}" font-size="11">{label}</text>"#,
                LEFT + length + 6.0,
                y + BAR - 2.5
            )?;
            told.push(format!("{}, {}: {value}", row.title, kind.name()));
            y += STEP;
        }
        y += GAP;
    }
    let mut legend = String::new();
    let mut x = LEFT;
    for kind in Kind::ALL {
        writeln!(
            legend,
            r#"  <rect class="{}" x="{x:.0}" y="40" width="12" height="12" rx="2"/>"#,
            class(kind)
        )?;
        writeln!(
            legend,
            r#"  <text class="text" x="{:.0}" y="51" font-size="12">{}</text>"#,
            x + 17.0,
            kind.name()
        )?;
        x += 40.0 + 7.2 * kind.name().chars().count() as f64;
    }
    Ok(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-labelledby="title desc" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13">
  <title id="title">CPU and memory relative to nginx: shorter is better</title>
  <desc id="desc">{desc}.</desc>
  <style>{STYLE}</style>
  <text class="name" x="{LEFT}" y="24" font-size="15">CPU and memory on one core, nginx = 1: shorter is better</text>
{legend}  <line class="one" x1="{one}" x2="{one}" y1="{line:.0}" y2="{end:.0}"/>
{bars}</svg>
"#,
        height = y + 6.0,
        desc = told.join("; "),
        one = LEFT + ONE,
        line = TOP - 8.0,
        end = y - GAP + 4.0,
    ))
}
