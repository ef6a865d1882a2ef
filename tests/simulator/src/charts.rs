//! Pictures of a sweep, as SVG.

use plotters::prelude::*;

use super::sweep::{INTERVALS, SENDERS};
use super::table::Row;
use super::theory::{self, Board};

/// Size of a picture, in pixels.
const SIZE: (u32, u32) = (960, 560);

/// What is left for the legend, on the right.
const LEGEND: u32 = 190;

/// A picture: what is drawn against what.
struct Chart {
    file: &'static str,
    title: &'static str,
    axis: &'static str,
    feed: &'static str,
    x: (&'static str, std::ops::Range<f64>),
    y: (&'static str, std::ops::Range<f64>),
    figure: fn(&Row) -> f64,
    /// Lines of theory: a name, and points.
    theory: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// A colour for each policy, the same in all pictures, dark enough for white.
const COLOURS: [(&str, RGBColor); 15] = [
    ("svcmap", RGBColor(200, 0, 40)),
    ("no-credits", RGBColor(20, 30, 120)),
    ("p2c-own-piggyback", RGBColor(0, 130, 60)),
    ("p2c-own", RGBColor(190, 150, 0)),
    ("p2c", RGBColor(0, 100, 190)),
    ("least-own", RGBColor(235, 120, 20)),
    ("least", RGBColor(125, 20, 150)),
    ("round-robin", RGBColor(0, 170, 190)),
    ("random", RGBColor(220, 40, 200)),
    ("threshold", RGBColor(120, 160, 20)),
    ("threshold-named", RGBColor(230, 120, 130)),
    ("basic-li", RGBColor(0, 90, 95)),
    ("aggressive-li", RGBColor(140, 130, 220)),
    ("prequal", RGBColor(140, 85, 30)),
    ("oracle", RGBColor(110, 110, 110)),
];

fn colour(policy: &str) -> RGBAColor {
    let known = COLOURS.iter().find(|(name, _)| *name == policy);
    known.map_or(BLACK, |(_, colour)| *colour).to_rgba()
}

type Drawing = Result<(), Box<dyn std::error::Error>>;

/// All pictures of these rows: the name of each, and the SVG.
///
/// # Errors
/// What the drawing library has to say.
pub fn all(rows: &[Row]) -> Result<Vec<(&'static str, String)>, String> {
    let svg = |chart: Chart| {
        let mut text = String::new();
        draw(&chart, rows, &mut text).map_err(|error| error.to_string())?;
        Ok((chart.file, text))
    };
    charts().into_iter().map(svg).collect()
}

fn charts() -> Vec<Chart> {
    let interval = || ("publish interval / mean service time", 0.09..60.0);
    let far = || ("share of first attempts rejected as full", 1e-6..1.0);
    let board = INTERVALS.map(|interval| {
        let board = Board { utilisation: 0.9, interval, slots: 11, avoids_full: true };
        (interval, board.solve().1)
    });
    let random = INTERVALS.map(|interval| (interval, theory::loss(11, 0.9)));
    vec![
        Chart {
            file: "far-interval.svg",
            title: "How often the cache is wrong, by its age: a board that all see",
            axis: "interval",
            feed: "board",
            x: interval(),
            y: far(),
            figure: |row| row.far,
            theory: vec![("p2c in theory", board.to_vec()), ("random in theory", random.to_vec())],
        },
        Chart {
            file: "far-interval-mapper.svg",
            title: "The same with svcmap's mapper, which publishes what matters at once",
            axis: "interval",
            feed: "mapper",
            x: interval(),
            y: far(),
            figure: |row| row.far,
            theory: Vec::new(),
        },
        Chart {
            file: "frr-interval.svg",
            title: "Jobs refused although a worker had room",
            axis: "interval",
            feed: "board",
            x: interval(),
            y: ("share of jobs", 1e-6..1.0),
            figure: |row| row.frr,
            theory: Vec::new(),
        },
        Chart {
            file: "wait-oracle.svg",
            title: "The wait that 99 % do not exceed, beside an oracle's",
            axis: "interval",
            feed: "board",
            x: interval(),
            y: ("p99 wait / that of the oracle", 0.8..8.0),
            figure: |row| row.wait_p99_to_oracle,
            theory: Vec::new(),
        },
        Chart {
            file: "far-senders.svg",
            title: "How often the cache is wrong, by the number of senders (board, T = 10)",
            axis: "senders-old-board",
            feed: "board",
            x: ("senders", 0.9..SENDERS[SENDERS.len() - 1] as f64 * 1.1),
            y: far(),
            figure: |row| row.far,
            theory: Vec::new(),
        },
    ]
}

fn draw(chart: &Chart, rows: &[Row], text: &mut String) -> Drawing {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 - LEGEND);
    let (floor, (x, y)) = (chart.y.1.start, (chart.x.1.clone(), chart.y.1.clone()));
    let mut area = ChartBuilder::on(&left)
        .caption(chart.title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    area.configure_mesh()
        .x_desc(chart.x.0)
        .y_desc(chart.y.0)
        .y_label_formatter(&|y| if *y < 0.1 { format!("{y:.0e}") } else { format!("{y}") })
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    let mut row = 0;
    for (name, line) in &chart.theory {
        let points = line.iter().copied().filter(|(_, y)| *y >= floor);
        area.draw_series(DashedLineSeries::new(points, 4, 4, BLACK.stroke_width(1)))?;
        legend(&right, row, name, BLACK.to_rgba(), true)?;
        row += 1;
    }
    for (policy, line) in lines(chart, rows) {
        let colour = colour(&policy);
        let seen = || line.iter().copied().filter(|(_, y)| *y >= floor);
        area.draw_series(LineSeries::new(seen(), colour.stroke_width(2)))?;
        area.draw_series(seen().map(|point| Circle::new(point, 3, colour.filled())))?;
        // What did not happen stands at the floor.
        let never = line.iter().filter(|(_, y)| *y < floor).map(|(x, _)| (*x, floor));
        area.draw_series(never.map(|point| Circle::new(point, 4, colour.stroke_width(1))))?;
        legend(&right, row, &policy, colour, false)?;
        row += 1;
    }
    root.present()?;
    Ok(())
}

/// A line for each policy, in the order of the table.
fn lines(chart: &Chart, rows: &[Row]) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    let wanted = |row: &&Row| row.axis == chart.axis && row.feed == chart.feed;
    for row in rows.iter().filter(wanted) {
        let Ok(x) = row.value.parse() else { continue };
        let point = (x, (chart.figure)(row));
        match lines.iter_mut().find(|(policy, _)| *policy == row.policy) {
            Some((_, line)) => line.push(point),
            None => lines.push((row.policy.clone(), vec![point])),
        }
    }
    lines
}

fn legend(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    row: i32,
    name: &str,
    colour: RGBAColor,
    dashed: bool,
) -> Drawing {
    let y = 48 + 22 * row;
    if dashed {
        for x in [4, 12, 20] {
            area.draw(&PathElement::new([(x, y), (x + 4, y)], colour.stroke_width(1)))?;
        }
    } else {
        area.draw(&PathElement::new([(4, y), (24, y)], colour.stroke_width(2)))?;
        area.draw(&Circle::new((14, y), 3, colour.filled()))?;
    }
    area.draw(&Text::new(name.to_owned(), (32, y - 7), ("sans-serif", 14)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_picture_names_its_policies() {
        let row = |axis: &str, feed: &str, policy: &str, value: &str| Row {
            axis: axis.into(),
            feed: feed.into(),
            policy: policy.into(),
            value: value.into(),
            far: 0.01,
            frr: 0.0,
            wait_p99_to_oracle: 1.5,
            ..Row::default()
        };
        let mut rows = Vec::new();
        for (axis, feed) in
            [("interval", "board"), ("interval", "mapper"), ("senders-old-board", "board")]
        {
            for (policy, value) in [("p2c", "1"), ("p2c", "10"), ("least", "1"), ("least", "10")] {
                rows.push(row(axis, feed, policy, value));
            }
        }
        let pictures = all(&rows).unwrap();
        assert_eq!(pictures.len(), 5);
        for (name, svg) in pictures {
            assert!(svg.trim_end().ends_with("</svg>"), "{name}");
            assert!(svg.contains("p2c") && svg.contains("least"), "{name}");
            assert!(svg.len() < 200_000, "{name}");
        }
    }
}
