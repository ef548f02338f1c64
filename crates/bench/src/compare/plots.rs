//! The page's pictures: how a figure changes with the number of clients.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::Page;
use super::samples::{Clients, Figure, Job, Samples};

const SIZE: (u32, u32) = (640, 360);
/// Above the highest point.
const HEADROOM: f64 = 1.1;

/// One picture: the end of its file's name, what it shows.
pub struct Plot {
    pub name: &'static str,
    pub title: &'static str,
    figure: fn(Job, Clients) -> Figure,
    /// Where no line is expected.
    legend: SeriesLabelPosition,
}

pub const PLOTS: [Plot; 3] = [
    Plot {
        name: "writes",
        title: "Writes a second, by clients",
        figure: Figure::Rate,
        legend: SeriesLabelPosition::UpperLeft,
    },
    Plot {
        name: "p99",
        title: "p99 of writes in milliseconds, by clients",
        figure: Figure::P99,
        legend: SeriesLabelPosition::UpperLeft,
    },
    Plot {
        name: "cpu",
        title: "Servers' processor seconds per 1,000 writes, by clients",
        figure: Figure::ServerCpu,
        legend: SeriesLabelPosition::UpperRight,
    },
];

struct Line {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

impl Plot {
    /// As SVG.
    pub fn draw(&self, page: &Page) -> Result<String> {
        let line = |name, color, samples| Line { name, color, points: self.points(samples) };
        let lines = [
            line("Bellwether, etcd's protocol", BLUE, &page.bellwether),
            line("Bellwether, HTTP", CYAN, &page.http),
            line("etcd", RED, &page.etcd),
        ];
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        // The backend's errors borrow the text.
        self.lines(&area, &lines).map_err(|error| anyhow!("drawing {}: {error}", self.name))?;
        drop(area);
        Ok(svg)
    }

    fn points(&self, samples: &Samples) -> Vec<(f64, f64)> {
        let point = |clients: Clients| {
            Some((clients.count() as f64, samples.median((self.figure)(Job::Put, clients))?))
        };
        Clients::ALL.into_iter().filter_map(point).collect()
    }

    fn lines<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        lines: &[Line],
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(clients_range().log_scale(), 0.0..top(lines))?;
        chart.configure_mesh().x_desc("clients").light_line_style(TRANSPARENT).draw()?;
        for Line { name, color, points } in lines {
            let color = *color;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        let mut names = chart.configure_series_labels();
        names.position(self.legend.clone()).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        area.present()
    }
}

fn clients_range() -> Range<f64> {
    Clients::One.count() as f64..Clients::Most.count() as f64
}

fn top(lines: &[Line]) -> f64 {
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    values.fold(f64::MIN_POSITIVE, f64::max) * HEADROOM
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::tests::page;

    #[test]
    fn pictures_name_both_systems() {
        for plot in &PLOTS {
            let svg = plot.draw(&page()).expect("draws");
            assert!(svg.starts_with("<svg") && svg.contains("etcd") && svg.contains("Bellwether, HTTP"));
        }
    }
}
