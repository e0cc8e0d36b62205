//! Draws memory, descriptors and latency over the time as an SVG.

use std::fmt::Write;

use crate::samples::Sample;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 110.0;
const LEFT: f64 = 90.0;

/// A line of the chart: its title, its unit, and its value in a sample.
type Line = (&'static str, &'static str, fn(&Sample) -> f64);

const LINES: [Line; 4] = [
    ("own pages", "kB", |it| it.own_kb as f64),
    ("descriptors", "", |it| it.descriptors as f64),
    ("/healthz median", "ms", |it| it.health_50),
    ("/healthz 99 %", "ms", |it| it.health_99),
];

/// Returns an SVG with one field for each line. The value axes begin at zero.
pub(crate) fn draw(samples: &[Sample]) -> String {
    let height = HEIGHT * LINES.len() as f64 + 20.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        LEFT + WIDTH + 20.0
    );
    let end = samples.last().map_or(1.0, |it| it.at).max(1.0);
    for (row, (title, unit, value)) in LINES.into_iter().enumerate() {
        let bottom = HEIGHT * (row as f64 + 1.0);
        let most = samples.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
        let scale = HEIGHT - 30.0;
        let points: Vec<String> = samples
            .iter()
            .map(|it| {
                let x = LEFT + WIDTH * it.at / end;
                format!("{x:.1},{:.1}", bottom - scale * value(it) / most)
            })
            .collect();
        // Writing to a String never fails.
        let _ = write!(
            text,
            "<text x=\"{LEFT}\" y=\"{:.1}\">{title}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{most:.4} {unit}</text>\n\
             <text x=\"{:.1}\" y=\"{bottom:.1}\" text-anchor=\"end\">0</text>\n\
             <path d=\"M{LEFT} {bottom:.1}h{WIDTH}\" stroke=\"#999\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"#0a58a8\"/>\n",
            bottom - scale - 5.0,
            LEFT - 6.0,
            bottom - scale + 5.0,
            LEFT - 6.0,
            points.join(" ")
        );
    }
    let _ = write!(
        text,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{end:.0} s</text>\n</svg>\n",
        LEFT + WIDTH,
        height - 4.0
    );
    text
}
