"""Word lists of the embedded pair's problem generator.

Only words: what is done with them stands in `problems`. The lists are long on purpose. Copying the
right name or thing out of some hundreds is what a small student does badly and a larger teacher
well, so it is the source of off-support disagreement in the demonstration.
"""

from __future__ import annotations

NAMES: tuple[str, ...] = tuple(
    """
    Aaron Abena Adele Agnes Ahmed Aisha Akira Alba Alma Amara Amir Anders Anika Anton Arjun Asha
    Astrid Ayla Basil Beatriz Bella Bianca Boris Bruno Camille Carlos Celine Chidi Clara Conrad Cora
    Dalia Daniel Daphne Dara David Deepa Diego Dina Dmitri Dora Edgar Edith Eduardo Eleni Elif Elsa
    Emeka Emil Emma Enzo Esther Ewa Farah Fatima Felix Fiona Flora Frank Freya Gabriel Gemma George
    Gita Greta Gustav Hana Hannah Harold Hassan Hazel Hector Helga Henry Hugo Ida Igor Imani Ines
    Ingrid Irene Isaac Ivan Jack Jada Jamal Jana Jasper Javier Jenna Joan Jonas Josef Judith Jules
    Kai Kamal Karin Karl Katya Keiko Kenji Khalid Kofi Lars Laura Layla Lena Leo Leila Liam Lidia
    Linus Lola Lucia Luis Lydia Maja Malik Manuel Marco Maria Martin Mateo Maya Mei Mia Milan Mina
    Mira Moses Musa Nadia Naomi Nelson Nico Nina Noah Nora Olaf Olga Olivia Omar Oscar Otto Pablo
    Paula Pedro Petra Philip Priya Quentin Rafael Rahel Rania Ravi Rita Robin Rosa Ruben Ruth Sadia
    Salma Samuel Sandra Sara Selma Sergei Shira Sofia Stefan Sunita Sven Talia Tamar Tara Thomas
    Tina Tobias Tomas Uma Umar Ursula Valentin Vera Victor Viola Walter Wanda Wendy Willem Xenia
    Yara Yasmin Yuki Yusuf Zahra Zara Zeno Zoe
    """.split()
)

THINGS: tuple[str, ...] = tuple(
    """
    acorns almonds anchors apples apricots arrows badges bagels balloons bananas bandages barrels
    batteries beads beans bells belts berries biscuits blankets blocks boats bolts bones books
    boots bottles bracelets bricks brooches brushes buckets buckles bulbs buns buttons cabbages
    cables cakes cameras candles candies cards carpets carrots cartons chairs cherries chestnuts
    chisels clips clocks coats coconuts coins combs cookies corks crackers crayons crystals cups
    curtains cushions daisies dates dice dishes dolls dominoes doughnuts drums eggs envelopes
    erasers fans feathers figs flags flashlights flowers flutes folders forks fossils frames gears
    gems glasses gloves goggles grapes guitars hammers hats helmets hooks jackets jars jewels kites
    knives knobs ladders lamps lanterns leaves lemons lenses letters lilies limes locks magnets
    mangoes maps marbles markers masks mats medals melons mirrors mittens muffins mugs mushrooms
    nails napkins needles notebooks nuts oars olives onions oranges ovens paddles pancakes papers
    peaches peanuts pearls pears pebbles pencils pens peppers photos pickles pies pillows pins
    pipes plates plums posters potatoes pots pretzels puppets puzzles quilts radishes raisins
    ribbons rings robots rocks ropes roses rugs rulers sandwiches saucers scarves scissors screws
    seeds shells shirts shoes shovels skates sketches socks spoons springs stamps stars stickers
    stones stools straws sweaters swords tables tacks tapes teapots tents thimbles tickets tiles
    tires tomatoes tools towels toys trays trophies trumpets tulips turnips umbrellas vases violins
    wagons walnuts watches wheels whistles wigs wires zippers
    """.split()
)

CONTAINERS: tuple[str, ...] = tuple(
    """
    bags baskets bins bowls boxes bundles cabinets cases chests crates cupboards drawers kits packs
    pallets parcels pouches racks sacks shelves stacks suitcases tins trunks tubs
    """.split()
)

PLACES: tuple[str, ...] = tuple(
    """
    airport arena attic bakery bank barn basement beach bridge cabin cafe camp canal castle cave
    cellar chapel church cinema classroom clinic closet coast corner cottage court creek dock
    factory fair farm field forest fountain gallery garage garden gate greenhouse gym hall harbor
    hill hospital hotel house island kitchen laboratory lake library lighthouse market meadow mill
    mine museum office orchard palace park pharmacy playground pond pool port prison quarry ranch
    restaurant river road roof school shed shop square stable stadium station store stream studio
    temple theater tower town tunnel valley village warehouse well workshop yard zoo
    """.split()
)

PEOPLE: tuple[str, ...] = tuple(
    """
    aunt baker brother butcher captain carpenter coach cousin customer daughter dentist doctor
    driver farmer father friend gardener grandfather grandmother guest guide janitor judge
    librarian mechanic merchant mother neighbor nephew niece nurse painter partner pilot player
    plumber poet pupil sailor scout singer sister soldier son stranger student tailor teacher
    tourist trader twin uncle visitor waiter writer
    """.split()
)

ADJECTIVES: tuple[str, ...] = tuple(
    """
    amber ancient beige black blue brass bright broken bronze brown carved cheap clean copper
    cracked crimson curved dark dusty empty faded fancy fresh frozen glass gold golden gray green
    heavy hollow indigo iron ivory large leather light little long metal narrow new old orange
    painted pale paper pink plain plastic polished pretty purple red ripe rough round rusty scarlet
    sharp shiny short silk silver small smooth soft square steel sticky striped tall thick thin
    tiny turquoise used violet warm wet white wide wild wooden woolen yellow
    """.split()
)

DAYS: tuple[str, ...] = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
