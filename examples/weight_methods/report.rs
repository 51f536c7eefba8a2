//! The figures as a table and as JSON.

use std::fmt::Write;

use crate::program::{Object, json};

/// One method at one setting.
pub(crate) struct Row {
    pub(crate) method: &'static str,
    pub(crate) bits: u32,
    pub(crate) group: usize,
    /// SQNR of the outputs of each layer, for the inputs that it has in the float network.
    pub(crate) layers_db: Vec<f64>,
    /// SQNR of the outputs of the network.
    pub(crate) outputs_db: f64,
    /// The fraction of test images that are classified as labelled.
    pub(crate) accuracy: f64,
}

impl Row {
    /// The noise power of the outputs of layers and of the network, as a fraction of that of rounding to nearest. That of the
    /// layers is the geometric mean.
    fn noise(&self, rows: &[Row]) -> (f64, f64) {
        let same = |row: &&Row| row.method == "nearest" && (row.bits, row.group) == (self.bits, self.group);
        let nearest = rows.iter().find(same).unwrap_or(self);
        let power = |db: f64| 10f64.powf(-db / 10.0);
        let mean = |row: &Row| row.layers_db.iter().sum::<f64>() / row.layers_db.len() as f64;
        (power(mean(self) - mean(nearest)), power(self.outputs_db - nearest.outputs_db))
    }

    pub(crate) fn to_json(&self, rows: &[Row]) -> Object {
        let (layers, outputs) = self.noise(rows);
        vec![
            ("method", json(self.method)),
            ("bits", json(self.bits)),
            ("group", json(self.group)),
            ("layers_db", json(&self.layers_db)),
            ("outputs_db", json(self.outputs_db)),
            ("layers_noise", json(layers)),
            ("outputs_noise", json(outputs)),
            ("accuracy", json(self.accuracy)),
        ]
    }
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "SQNR of the outputs of layers and of the network on test images, and their noise power as a fraction of nearest's\n",
    );
    let mut setting = (0, 0);
    for row in rows {
        if setting != (row.bits, row.group) {
            setting = (row.bits, row.group);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\nW{} g{}", row.bits, row.group);
            let _ = writeln!(text, "method               layers, dB          noise   outputs   noise   accuracy");
        }
        let (layers, outputs) = row.noise(rows);
        let layers_db: Vec<String> = row.layers_db.iter().map(|db| format!("{db:5.1}")).collect();
        let _ = writeln!(
            text,
            "{:<19}  {:<18}  {layers:5.2}   {:>4.1} dB   {outputs:5.2}   {:6.2} %",
            row.method,
            layers_db.join(" "),
            row.outputs_db,
            100.0 * row.accuracy,
        );
    }
    text
}
