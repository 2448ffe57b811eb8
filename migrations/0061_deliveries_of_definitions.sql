-- Deliveries are looked at by the audience or computed trait they are about, newest first within each destination. What is about none
-- of them, as events are, costs nothing.
CREATE INDEX delivery_definition ON delivery (space_id, definition_no, destination_no, seq) WHERE definition_no <> 0;
CREATE INDEX delivery_outcome_definition ON delivery_outcome (space_id, definition_no, destination_no, delivery_no)
    WHERE definition_no <> 0;
